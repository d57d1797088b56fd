"""How long does an answer take, and how large is the model? Published models beside each other.

    python benchmarks/compare_models.py models/twincar runs/lite/model --photo photo.jpg

Each model answers the same decoded photo, with and without the Grad-CAM++ overlay, in turns, so that what else the
machine does falls on all of them alike. Prints medians over the rounds.
"""

import platform
import statistics
import sys
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from twincar import Predictor
from twincar.features.photo import load_photo


def main(
    models: Annotated[list[str], typer.Argument(help="Model folders or Hub repos.")],
    photo: Annotated[Path, typer.Option(help="The photo to answer.")],
    rounds: Annotated[int, typer.Option(min=3)] = 30,
) -> None:
    """Time published models against each other on one photo."""
    picture = load_photo(photo)
    predictors = {name: Predictor.from_pretrained(name, device="cpu") for name in models}
    ways = {  # from one look each: a second one takes knowledge, which not every model has
        "answer": lambda ask: ask(picture, refine=False),
        "answer and overlay": lambda ask: ask(picture, refine=False).overlay(),
    }
    seconds: dict[tuple[str, str], list[float]] = {(name, way): [] for name in models for way in ways}
    for turn in range(rounds + 3):
        for name, ask in predictors.items():
            for way, work in ways.items():
                start = time.perf_counter()
                work(ask)
                if turn >= 3:  # the first ones warm up
                    seconds[name, way].append(time.perf_counter() - start)

    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"photo of {picture.width} by {picture.height} pixels, {rounds} rounds, medians\n")
    print(f"| model | network | weights | file | read at | {' | '.join(ways)} |")
    print("| --- | --- | --- | --- | --- |" + " --- |" * len(ways))
    for name, ask in predictors.items():
        file = Path(name) / "model.safetensors"
        size = f"{file.stat().st_size / 1e6:.1f} MB" if file.is_file() else "on the Hub"
        weights = sum(parameter.numel() for parameter in ask.network.parameters()) / 1e6
        times = [f"{1000 * statistics.median(seconds[name, way]):.0f} ms" for way in ways]
        network = f"{ask.config['architecture']['name']} ({ask.engine.name})"
        print(f"| {name} | {network} | {weights:.1f} M | {size} | {ask.size} px | {' | '.join(times)} |")


if __name__ == "__main__":
    sys.exit(typer.run(main))
