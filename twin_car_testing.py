"""Predict a folder of photos with a published model, write a table and compute metrics.

    python twin_car_testing.py photos/ --out predictions.csv
    python twin_car_testing.py photos/ --labels labels.csv --scores scores.json --model user/repo

Labels are the names of the subfolders, if they are class names ("BMW M3 Coupe 2012/1.jpg", "/" written as "-"), or come
from a CSV with the columns file (relative to the folder) and class_name. Metrics are computed from the labelled photos;
the others are only predicted. A photo that cannot be read is a row with an error.
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import pandas as pd
import typer

from twincar import Predictor
from twincar.batch.results import find_photos
from twincar.cli.base import Model, user_errors
from twincar.config import PUBLISHED, TwinCarError, canonical_class_name
from twincar.files import atomic_write, write_json
from twincar.modeling.evaluation.evaluate import score
from twincar.text import count


def utf8(path: Path) -> str:
    r"""Return a path as UTF-8 text for a table: other bytes become "\xff", a carriage return becomes "\r".

    File names on Linux can be any bytes, and some CSV readers end a row at a carriage return.
    """
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace").replace("\r", "\\r")


def labels_of(files: list[Path], folder: Path, labels: Path | None, names: tuple[str, ...]) -> list[str | None]:
    """Return the class name of each file, None if it has no label.

    Args:
        files: The photos.
        folder: The folder of all photos.
        labels: A CSV with the columns file and class_name; None takes the names of the subfolders.
        names: The class names of the model.

    Raises:
        TwinCarError: The CSV cannot be read, or contains unknown files or classes.
    """
    spelling = {canonical_class_name(name): name for name in names}
    if labels is None:
        return [spelling.get(canonical_class_name(file.parent.name)) for file in files]
    try:
        rows = pd.read_csv(labels, dtype=str, keep_default_na=False)
    except (OSError, ValueError) as error:
        raise TwinCarError(f"{labels} cannot be read as CSV: {str(error).strip()}") from error
    if not {"file", "class_name"} <= set(rows.columns):
        raise TwinCarError(f"{labels} needs the columns file and class_name: it has {', '.join(rows.columns)}.")
    rows = rows[rows["class_name"].str.strip() != ""]
    known = rows["class_name"].map(canonical_class_name).map(spelling)
    if known.isna().any():
        strange = rows.loc[known.isna(), "class_name"]
        number = count(strange.nunique(), "class", "classes")
        raise TwinCarError(f"{labels} contains {number} that the model does not have, such as {strange.iloc[0]!r}.")
    label_of = dict(zip((Path(file).as_posix() for file in rows["file"]), known, strict=True))
    here = [file.relative_to(folder).as_posix() for file in files]
    if missing := [file for file in label_of if file not in set(here)]:
        number = count(len(missing), "photo")
        raise TwinCarError(f"{labels} contains {number} that {folder} does not have, such as {missing[0]}.")
    return [label_of.get(file) for file in here]


def main(
    folder: Annotated[Path, typer.Argument(exists=True, file_okay=False, help="Folder of photos.")],
    model: Model = str(PUBLISHED),
    labels: Annotated[
        Path | None, typer.Option(help="CSV with file,class_name.", show_default="subfolders are classes")
    ] = None,
    out: Annotated[Path, typer.Option(help="CSV file to write.")] = Path("predictions.csv"),
    scores: Annotated[Path | None, typer.Option(help="JSON file to write the metrics to.")] = None,
) -> None:
    """Predict a folder of photos with a published model, write a table and compute metrics."""
    with user_errors():
        predictor = Predictor.from_pretrained(model)
        files = list(find_photos([folder]))
        classes = labels_of(files, folder, labels, predictor.class_names)
        if scores and not any(classes):
            raise TwinCarError(
                f"No photo in {folder} has a label: name the subfolders after classes, or pass --labels."
            )
        names = [utf8(file) for file in files]
        result = score(predictor, names, classes, files, progress=sys.stdout.isatty())
    unreadable = pd.DataFrame(result.unreadable, columns=["path", "error"])
    table = pd.DataFrame({"path": names, "class_name": classes})
    table = table.merge(result.predictions.drop(columns="class_name"), how="left").merge(unreadable, how="left")
    table.insert(0, "file", [utf8(file.relative_to(folder)) for file in files])
    with atomic_write(out) as temporary:
        table.drop(columns="path").to_csv(temporary, index=False, float_format="%.4f")
    print(f"{count(len(table), 'photo')}, {len(unreadable):,} of them unreadable: {out}")
    if result.scores:
        print(f"{result.scores['pictures']:,} labelled:")
        for name, value in result.scores.items():
            if isinstance(value, float):
                low, high = result.scores.get(f"{name}_interval", (None, None))
                print(
                    f"  {name:20} {value:.4f}" + ("" if low is None else f"  (95 % interval {low:.4f} to {high:.4f})")
                )
        if scores:
            write_json(result.scores, scores)
            print(f"Metrics: {scores}")


if __name__ == "__main__":
    typer.run(main)
