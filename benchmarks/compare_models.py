"""Size and latency of several published models.

    python -m benchmarks.compare_models models/twincar runs/lite/model --photo photo.jpg

Each model predicts the same decoded photo in turn, with and without the Grad-CAM++ overlay, so that other load on the
machine affects all of them equally. Prints medians over the rounds.
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
    photo: Annotated[Path, typer.Option(help="Photo to predict.")],
    rounds: Annotated[int, typer.Option(min=3, help="Number of rounds.")] = 30,
) -> None:
    """Compare published models on one photo."""
    picture = load_photo(photo)
    predictors = {name: Predictor.from_pretrained(name, device="cpu") for name in models}
    variants = {  # one pass each: not every model has the detector that a second pass needs
        "prediction": lambda ask: ask(picture, refine=False),
        "prediction and overlay": lambda ask: ask(picture, refine=False).overlay(),
    }
    seconds: dict[tuple[str, str], list[float]] = {(name, variant): [] for name in models for variant in variants}
    for turn in range(rounds + 3):
        for name, ask in predictors.items():
            for variant, work in variants.items():
                start = time.perf_counter()
                work(ask)
                if turn >= 3:  # the first three rounds are warm-up
                    seconds[name, variant].append(time.perf_counter() - start)

    print(f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"photo of {picture.width} by {picture.height} pixels, {rounds} rounds, medians\n")
    print(f"| model | network | weights | file | image size | {' | '.join(variants)} |")
    print("| --- | --- | --- | --- | --- |" + " --- |" * len(variants))
    for name, ask in predictors.items():
        file = Path(name) / "model.safetensors"
        size = f"{file.stat().st_size / 1e6:.1f} MB" if file.is_file() else "on the Hub"
        weights = sum(parameter.numel() for parameter in ask.network.parameters()) / 1e6
        times = [f"{1000 * statistics.median(seconds[name, variant]):.0f} ms" for variant in variants]
        network = f"{ask.config['architecture']['name']} ({ask.engine.name})"
        print(f"| {name} | {network} | {weights:.1f} M | {size} | {ask.size} px | {' | '.join(times)} |")


if __name__ == "__main__":
    sys.exit(typer.run(main))
