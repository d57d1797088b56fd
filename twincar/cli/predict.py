"""Commands for photos: predict, explain."""

from collections import Counter
from collections.abc import Container, Iterator
from contextlib import nullcontext
from itertools import chain, tee
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from twincar.batch.results import as_json as line_of
from twincar.batch.results import find_photos, open_results
from twincar.cli.base import Model, app, echo, err, out, user_errors
from twincar.config import PUBLISHED, TwinCarError
from twincar.files import atomic_write
from twincar.modeling.inference.describe import as_dict
from twincar.text import count, printable


@app.command()
def predict(
    photos: Annotated[list[str], typer.Argument(help="Photos or folders of photos; with `--engine ray` also s3://…")],
    model: Model = str(PUBLISHED),
    top: Annotated[int, typer.Option(min=1, help="Number of classes per photo.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out", help="File to write results to: .jsonl, or .csv with a line per car and its top class only."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Append to OUT and skip the photos that are already in it.")] = False,
    engine: Annotated[
        str | None,
        typer.Option(
            help="torch or openvino, optionally with a precision (openvino:f32), or ray.", show_default="the fastest"
        ),
    ] = None,
) -> None:
    """Identify every car in photos, the largest first. Exits with 1 if a photo could not be read."""
    done = failed = 0
    with user_errors():
        if resume and not out_file:
            raise TwinCarError("`--resume` needs the results file: add `--out`.")
        with open_results(out_file, resume) if out_file else nullcontext() as answers, _progress(out_file) as progress:
            task = progress.add_task("")
            work = _on_ray if engine == "ray" else _here
            for file, answer in work(photos, model, top, engine, () if answers is None else answers):
                done, failed = done + 1, failed + isinstance(answer, str)
                progress.advance(task)
                if answers is not None:
                    answers.write(file, answer)
                elif as_json:
                    print(line_of(file, answer), flush=True)
                else:
                    _print_answer(file, answer)
            if answers is not None:
                before = f" ({len(answers):,} from earlier runs)" if len(answers) else ""
                echo(f"{count(done, 'photo')}, {failed:,} of them unreadable: {out_file}{before}")
    if failed:
        raise typer.Exit(1)


def _here(photos: list[str], model: str, top: int, engine: str | None, done: Container[str]) -> Iterator[tuple]:
    """Yield each photo not in `done`, in order, with its answer (`describe.as_dict`) or its error message."""
    unread: Counter[str] = Counter()
    pending = (file for file in find_photos(map(Path, photos), unread) if str(file) not in done)
    if (first := next(pending, None)) is None:  # raises for an empty folder before the model is loaded
        return
    from twincar import PhotoError, Predictor
    from twincar.modeling.engines.choose import limit_threads

    predictor = Predictor.from_pretrained(model, engine=engine)
    limit_threads(predictor.engine)
    at_once = 16 if predictor.engine.device.type == "cpu" else 128
    names, files = tee(chain([first], pending))
    for file, answer in zip(names, predictor.stream(files, at_once, full_size=False), strict=True):
        yield str(file), str(answer) if isinstance(answer, PhotoError) else as_dict(answer, top)
    if unread:
        kinds = ", ".join(f"{n:,} {suffix}" for suffix, n in unread.most_common())
        message = f"{count(unread.total(), 'picture')} in formats that are not read ({kinds}): save them as JPEG."
        err.print(escape(message), highlight=False, soft_wrap=True)


def _on_ray(photos: list[str], model: str, top: int, engine: str | None, done: Container[str]) -> Iterator[tuple]:
    """Do the work of `_here` on a Ray cluster."""
    from twincar.batch import ray_batch

    return ray_batch.predict_files(photos, model, top, done)


def _progress(out_file: Path | None) -> Progress:
    """Show the number of photos done, if results go to a file and stderr is a terminal."""
    columns = (SpinnerColumn(), TextColumn("{task.completed:,} photos"), TimeElapsedColumn())
    return Progress(*columns, console=err, disable=out_file is None or not err.is_terminal, transient=True)


def _print_answer(file: str, answer: dict | str) -> None:
    console = err if isinstance(answer, str) else out
    console.print(Text(printable(file), "bold"), soft_wrap=True)
    if isinstance(answer, str):
        console.print(f"  {escape(answer)}", highlight=False, soft_wrap=True)
        return
    cars = answer["cars"]
    for place, car in enumerate(cars if len(cars) > 1 else [answer], 1):
        which = f"Car {place} of {len(cars)}: " if len(cars) > 1 else ""
        console.print(f"  {which}{escape(car['said'])}", highlight=False, soft_wrap=True)
        for guess in car["top"]:
            console.print(f"  {guess['probability']:6.1%}  {escape(guess['class_name'])}", highlight=False)


@app.command()
def explain(
    photo: Annotated[Path, typer.Argument(help="Photo of a car.")],
    out_file: Annotated[Path, typer.Option("--out", help="Picture file to write: .png, .jpg or .webp.")],
    class_name: Annotated[
        str | None, typer.Option("--class", help="Class to draw the evidence for.", show_default="the most probable")
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="Grad-CAM++, HiResCAM (more specific to the class), Grad-CAM, XGrad-CAM, Layer-CAM, Finer-CAM, "
            "Eigen-CAM, Eigen-Grad-CAM, Ablation-CAM or Score-CAM."
        ),
    ] = "Grad-CAM++",
    model: Model = str(PUBLISHED),
) -> None:
    """Draw a heatmap of the evidence for a class over the photo."""
    from twincar import Predictor

    with user_errors():
        if out_file.suffix.lower() not in (".png", ".jpg", ".jpeg", ".webp"):
            raise TwinCarError(f"{out_file} does not end in .png, .jpg or .webp: name a picture file with `--out`.")
        answer = Predictor.from_pretrained(model)(photo)
        picture = answer.overlay(class_name, method)
        with atomic_write(out_file) as temporary:
            picture.save(temporary)
        done = f"{class_name or answer.top(1)[0].class_name}: {out_file}"
        out.print(escape(done), highlight=False, soft_wrap=True)
