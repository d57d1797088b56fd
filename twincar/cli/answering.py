"""Verbs that answer about photos: predict, explain."""

import json
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.markup import escape
from rich.text import Text

from twincar.cli.base import Model, app, err, out, sentences
from twincar.config import PICTURES, PUBLISHED, TwinCarError
from twincar.files import write_beside


@app.command()
def predict(
    photos: Annotated[list[Path], typer.Argument(help="Photos, or folders of photos.")],
    model: Model = str(PUBLISHED),
    top: Annotated[int, typer.Option(min=1, help="How many answers a photo.")] = 5,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """Name the cars in photos. Ends with exit code 1 when a photo could not be answered."""
    from twincar import PhotoError, Predictor
    from twincar.photo import printable

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
                print(json.dumps({"file": str(file)} | line), flush=True)  # in ASCII: a name may be no UTF-8
                continue
            voice = err if isinstance(answer, PhotoError) else out
            voice.print(Text(printable(str(file)), "bold"), soft_wrap=True)
            if isinstance(answer, PhotoError):
                voice.print(f"  {escape(str(answer))}", highlight=False, soft_wrap=True)
                continue
            for guess in answer.top(top):
                voice.print(f"  {guess.probability:6.1%}  {escape(guess.class_name)}", highlight=False)
    if failed:
        raise typer.Exit(1)


def find_photos(given: list[Path]) -> Iterator[Path]:
    """Files as they are named; of folders, all pictures below them in order."""
    for path in given:
        if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long
            yield path
            continue
        found = sorted(file for file in path.rglob("*") if file.suffix.lower() in PICTURES)
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
        with write_beside(out_file) as beside:
            picture.save(beside)
        done = f"{class_name or answer.top(1)[0].class_name}: {out_file}"
        out.print(escape(done), highlight=False, soft_wrap=True)
