"""Commands about the classes of a published model: classes, add-classes, remove-class."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from twincar.cli.base import Model, app, echo, err, out, user_errors
from twincar.config import PUBLISHED, TwinCarError

OutFolder = Annotated[Path, typer.Option("--out", help="Model folder to write; may be the same one.")]


@app.command()
def classes(model: Model = str(PUBLISHED)) -> None:
    """List the classes of a model: what it was trained on, and what was added, when and from how many photos."""
    from twincar.modeling.hub import model_folder

    with user_errors():
        published = model_folder.load(model)
        added, statistics = published.config.get("added_classes", {}), published.class_statistics
        table = Table(title=f"{len(published.config['class_names'])} classes")
        for heading in ("class", "pictures", "added"):
            table.add_column(heading, justify="right" if heading == "pictures" else "left")
        for label, name in enumerate(published.config["class_names"]):
            pictures = str(int(statistics.counts[label])) if statistics else ""
            table.add_row(name, pictures, added[name]["date"] if name in added else "")
        out.print(table)


@app.command("add-classes")
def add_classes(
    photos: Annotated[
        list[Path], typer.Argument(help="A folder with a folder of photos for each class; with --name, photos.")
    ],
    model: Model = str(PUBLISHED),
    out_folder: OutFolder = Path("models/mine"),
    name: Annotated[str | None, typer.Option(help="Name of the one class that all photos show.")] = None,
) -> None:
    """Add classes to a model from a few photos each, in seconds and without training."""
    from twincar.batch.results import find_photos
    from twincar.modeling.hub import model_folder
    from twincar.modeling.inference import new_classes
    from twincar.modeling.inference.predictor import Predictor

    with user_errors():
        by_class = {name: list(find_photos(photos))} if name else _class_folders(photos)
        published = model_folder.load(model)
        predictor = Predictor(published)
        examples = []
        for class_name, files in by_class.items():
            each = new_classes.read_examples(predictor, class_name, files)
            for file, reason in each.skipped:
                err.print(f"skipped: {file} of {each.name}: {reason}", markup=False, highlight=False, soft_wrap=True)
            for note in each.notes:
                err.print(f"note: {each.name}: {note}", markup=False, highlight=False, soft_wrap=True)
            echo(f"{each.name}: {each.count} photos")
            examples.append(each)
        model_folder.save(new_classes.add_classes(published.cpu(), examples), out_folder)
        echo(f"The model with {len(examples)} more {'class' if len(examples) == 1 else 'classes'} is in {out_folder}.")


@app.command("remove-class")
def remove_class(
    name: Annotated[str, typer.Argument(help="The class, as `twincar classes` writes it.")],
    out_folder: OutFolder,
    model: Model = str(PUBLISHED),
) -> None:
    """Remove a class from a model."""
    from twincar.modeling.hub import model_folder
    from twincar.modeling.inference import new_classes

    with user_errors():
        smaller = new_classes.remove_class(model_folder.load(model), name)
        model_folder.save(smaller, out_folder)
        echo(f"The model with {len(smaller.config['class_names'])} classes is in {out_folder}.")


def _class_folders(photos: list[Path]) -> dict[str, list[Path]]:
    """The photos of each class in a folder of class folders, by the class's name.

    Raises:
        TwinCarError: It is no such folder.
    """
    from twincar.batch.results import find_photos

    if len(photos) != 1 or not photos[0].is_dir():
        raise TwinCarError("Give one folder with a folder of photos for each class, or photos and their `--name`.")
    found = {folder.name: list(find_photos([folder])) for folder in sorted(photos[0].iterdir()) if folder.is_dir()}
    if not found:
        raise TwinCarError(
            f"{photos[0]} has no folders with photos: put the photos of each class into a folder of its name, or give "
            "the photos with `--name`."
        )
    return found
