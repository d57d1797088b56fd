"""The command `twincar`. Each verb reads its words, calls one function of the package, and says what came of it.

twincar --help
"""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from twincar.config import PUBLISHED, TwinCarError
from twincar.modeling.recipes import RECIPES

app = typer.Typer(
    help="Show it a photo of a car: it tells make, model and year, how sure it is, and what made it say so.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
)
out, err = Console(), Console(stderr=True)

RecipeName = StrEnum("RecipeName", {name: name for name in RECIPES})
Model = Annotated[str, typer.Option(help="A model folder, a Hub repo (user/repo), or an original .pth checkpoint.")]
Data = Annotated[Path, typer.Option(help="The folder that `twincar prepare` wrote.")]
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif", ".heic", ".jfif"}


@contextmanager
def sentences() -> Iterator[None]:
    """What a person can mend becomes one sentence and exit code 2; a defect keeps its traceback."""
    try:
        yield
    except TwinCarError as error:
        err.print(f"[bold red]twincar:[/] {error}", highlight=False, soft_wrap=True)
        raise typer.Exit(2) from error


@app.command()
def prepare(
    source: Annotated[str, typer.Argument(help="A folder in any layout of Stanford Cars, parquet, or a Hub dataset.")],
    out_folder: Annotated[Path, typer.Option("--out", help="Where the table goes.")] = Path("data"),
    val_size: Annotated[float, typer.Option(help="Share of the training pictures to validate on, 0 to 1.")] = 0.1,
    seed: int = 42,
    holdout: Annotated[
        Path | None, typer.Option(help="A folder of photos or a list of file names to leave out of training.")
    ] = None,
) -> None:
    """Turn pictures in any layout into one table, and say what was found."""
    from twincar import dataset

    with sentences():
        summary = dataset.prepare(source, out_folder, seed=seed, val_size=val_size, holdout=holdout)
        out.print(summary.describe(), highlight=False, soft_wrap=True)


@app.command()
def train(
    recipe: Annotated[RecipeName, typer.Option(help="Which recipe.")] = RecipeName.twincar,
    data: Data = Path("data"),
    init: Annotated[str, typer.Option(help="Start weights: imagenet (downloaded), a file, or none.")] = "imagenet",
    out_folder: Annotated[Path | None, typer.Option("--out", help="The run's folder  [default: runs/RECIPE]")] = None,
    resume: Annotated[bool, typer.Option(help="Go on after the last whole epoch of this folder.")] = False,
    epochs: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    size: Annotated[int | None, typer.Option(min=32, help="Picture size throughout, instead of the recipe's.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Instead of the recipe's.")] = None,
    seed: int = 42,
    workers: Annotated[int, typer.Option(min=0, help="Processes that read pictures.")] = 1,
    accelerator: Annotated[str, typer.Option(help="auto, cpu, gpu or mps.")] = "auto",
    devices: Annotated[str, typer.Option(help="How many devices of a host, or auto.")] = "auto",
    nodes: Annotated[int, typer.Option(min=1, help="How many hosts.")] = 1,
    precision: Annotated[
        str | None, typer.Option(help="Lightning's word, such as bf16-mixed  [default: what suits]")
    ] = None,
) -> None:
    """Train a recipe and publish the best epoch into OUT/model."""
    from twincar.dataset import load_table
    from twincar.modeling import publish as publishing
    from twincar.modeling import train as training

    chosen = RECIPES[recipe.value]
    changes = {"epochs": epochs, "batch_size": batch_size}
    changes |= {"sizes": ((0.0, size),), "eval_size": size} if size else {}
    chosen = replace(chosen, **{key: value for key, value in changes.items() if value})
    run = out_folder or Path("runs") / chosen.name
    with sentences():
        table = load_table(data)
        training.train(
            chosen,
            table,
            run,
            init=init,
            resume=resume,
            seed=seed,
            workers=workers,
            cache=data / "cache",
            accelerator=accelerator,
            devices=int(devices) if devices.isdigit() else devices,
            nodes=nodes,
            precision=precision,
            progress=err.is_terminal,
        )
        if training.is_first_process():
            _show(publishing.publish(run, table, run / "model"))
            out.print(f"Published in {run / 'model'}.", highlight=False)


@app.command()
def publish(
    run: Annotated[Path, typer.Argument(help="A folder that `twincar train` wrote.")],
    data: Data = Path("data"),
    out_folder: Annotated[Path, typer.Option("--out", help="The model folder.")] = PUBLISHED,
    name: Annotated[str, typer.Option(help="What the model card calls it.")] = "TwinCar",
    size: Annotated[int | None, typer.Option(help="Side at which photos are read  [default: the recipe's]")] = None,
    flip: Annotated[bool | None, typer.Option(help="Read the mirror image too  [default: the recipe's]")] = None,
) -> None:
    """Measure the best epoch of a run on the val pictures and write its model folder."""
    from twincar.dataset import load_table
    from twincar.modeling import publish as publishing

    with sentences():
        _show(publishing.publish(run, load_table(data), out_folder, name=name, size=size, flip=flip))
        out.print(f"Published in {out_folder}.", highlight=False)


@app.command()
def evaluate(
    model: Model = str(PUBLISHED),
    data: Data = Path("data"),
    split: Annotated[str, typer.Option(help="train, val, test or holdout.")] = "val",
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Also write scores.json, predictions.csv and per_class.csv there.")
    ] = None,
) -> None:
    """Score a published model on a split, with 95 % bootstrap intervals."""
    from twincar import Predictor
    from twincar.dataset import load_table
    from twincar.modeling import evaluate as evaluation

    with sentences():
        table = load_table(data)
        result = evaluation.evaluate(Predictor.from_pretrained(model), table, split)
        if out_folder:
            result.save(out_folder)
        _show(result)


def _show(result) -> None:
    table = Table(title=f"{result.scores['pictures']} {result.scores['split']} pictures")
    for heading in ("measure", "value", "95 % interval"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for name, value in result.scores.items():
        if isinstance(value, float):
            low, high = result.scores.get(f"{name}_interval", (None, None))
            table.add_row(name, f"{value:.4f}", "" if low is None else f"{low:.4f} to {high:.4f}")
    out.print(table)
    for path, reason in result.unreadable:
        err.print(f"left out: {path}: {reason}", highlight=False, soft_wrap=True)


@app.command()
def predict(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    model: Model = str(PUBLISHED),
    top: Annotated[int, typer.Option(min=1, help="How many answers a photo.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Name the cars in photos. Ends with exit code 1 when a photo could not be answered."""
    from twincar import PhotoError, Predictor

    failed = False
    with sentences():
        files = list(find_photos(photos))
        answers = Predictor.from_pretrained(model).stream(files)
        for file, answer in zip(files, answers, strict=True):
            failed |= isinstance(answer, PhotoError)
            if as_json:
                line = (
                    {"error": str(answer)}
                    if isinstance(answer, PhotoError)
                    else {"top": [asdict(guess) for guess in answer.top(top)]}
                )
                print(json.dumps({"file": str(file)} | line, ensure_ascii=False), flush=True)
            elif isinstance(answer, PhotoError):
                err.print(f"[bold]{file}[/]\n  {answer}", highlight=False, soft_wrap=True)
            else:
                out.print(f"[bold]{file}[/]", highlight=False, soft_wrap=True)
                for guess in answer.top(top):
                    out.print(f"  {guess.probability:6.1%}  {guess.class_name}", highlight=False)
    if failed:
        raise typer.Exit(1)


def find_photos(given: list[Path]) -> Iterator[Path]:
    """Files as they are named; of folders, all pictures below them in order."""
    for path in given:
        if not path.is_dir():
            yield path
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not found:
            raise TwinCarError(f"There are no pictures in the folder {path}.")
        yield from found


@app.command()
def explain(
    photo: Path,
    out_file: Annotated[Path, typer.Option("--out", help="Where the overlay goes, as PNG or JPEG.")],
    class_name: Annotated[
        str | None, typer.Option("--class", help="The evidence for this class  [default: the best]")
    ] = None,
    model: Model = str(PUBLISHED),
) -> None:
    """Draw what in the photo speaks for a class (Grad-CAM++)."""
    from twincar import Predictor

    with sentences():
        if out_file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise TwinCarError(f"{out_file} does not end in .png, .jpg or .webp: name a picture file with `--out`.")
        answer = Predictor.from_pretrained(model)(photo)
        picture = answer.overlay(class_name)
        out_file.parent.mkdir(parents=True, exist_ok=True)
        beside = out_file.with_name(f".{out_file.name}.tmp{out_file.suffix}")
        picture.save(beside)
        beside.replace(out_file)
        out.print(f"{class_name or answer.top(1)[0].class_name}: {out_file}", highlight=False, soft_wrap=True)


def main() -> None:
    """Entry point of the command; also `python -m twincar`."""
    try:
        app()
    except BrokenPipeError:  # `twincar predict … | head`
        sys.stderr.close()


if __name__ == "__main__":
    main()
