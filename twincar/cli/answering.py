"""Verbs that answer about photos: predict, explain."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from twincar.cli.base import Model, app, err, out, sentences
from twincar.config import PICTURES, PUBLISHED, TwinCarError
from twincar.files import write_beside
from twincar.saying import as_dict, say, several


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
                line = {"error": str(answer)} if isinstance(answer, PhotoError) else as_dict(answer, top)
                print(json.dumps({"file": str(file)} | line, ensure_ascii=False), flush=True)
            elif isinstance(answer, PhotoError):
                err.print(f"[bold]{file}[/]\n  {answer}", highlight=False, soft_wrap=True)
            else:
                out.print(f"[bold]{file}[/]", highlight=False, soft_wrap=True)
                said = f"{say(answer).text} {several(len(answer.others))}"
                out.print(f"  {said.strip()}", highlight=False, soft_wrap=True, markup=False)
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
        out.print(f"{class_name or answer.top(1)[0].class_name}: {out_file}", highlight=False, soft_wrap=True)
