"""Image statistics of a table (size, channel means, sharpness) and its class distribution.

    twincar prepare SOURCE --out data --statistics                        # of 400 pictures -> data/statistics.csv
    twincar prepare SOURCE --out data --statistics --keep reports/data    # and a copy that does not need the pictures

From Python: `rows, unreadable = statistics.measure(load_table("data"))`.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from rich.progress import track

from twincar.config import parse_class_name
from twincar.data.table import SPLITS, class_names
from twincar.features.photo import PhotoError, load_photo
from twincar.files import write_csv

COLUMNS = [
    "path", "class_name", "make", "split", "width", "height", "aspect_ratio", "box_width", "box_height",
    "red", "green", "blue", "sharpness",
]  # fmt: skip
SHARPNESS = ((0, "very blurry"), (100, "slightly blurry"), (500, "sharp"))  # (lower bound, label)
FILES = ("statistics.csv", "class_distribution.csv")


def measure(
    table: pd.DataFrame, sample: int = 400, seed: int = 42, *, progress: bool = False
) -> tuple[pd.DataFrame, list[tuple[str, str]]]:
    """Measure a random sample of a table's pictures.

    Args:
        table: Rows as of `load_table`.
        sample: Number of pictures to measure, drawn from all splits; all pictures if the table has no more.
        seed: Random seed of the sample.
        progress: Whether to show a progress bar.

    Returns:
        The measurements, in the table's order, and (path, reason) of the pictures that cannot be read. Columns:

        * path: file name without its folder, so that the table can be published.
        * width, height, aspect_ratio: of the upright picture, in pixels; width / height.
        * box_width, box_height: of the car's box, in pixels; NaN if there is none.
        * red, green, blue: mean of the channel, 0-255.
        * sharpness: see `sharpness`.
    """
    rows = table if sample >= len(table) else table.sample(sample, random_state=seed).sort_index()
    records, unreadable = [], []
    with ThreadPoolExecutor(os.cpu_count()) as pool:  # decoding and OpenCV release the GIL
        found = pool.map(_measure, rows["path"])
        measured = track(found, "Measuring", total=len(rows), disable=not progress)
        for row, result in zip(rows.itertuples(), measured, strict=True):
            if isinstance(result, str):
                unreadable.append((row.path, result))
                continue
            box = {"box_width": row.x2 - row.x1, "box_height": row.y2 - row.y1}
            name = {"path": Path(row.path).name, "class_name": row.class_name, "make": row.make, "split": row.split}
            records.append(name | box | result)
    return pd.DataFrame(records, columns=COLUMNS), unreadable


def sharpness(picture: np.ndarray) -> float:
    """Variance of the Laplacian of the gray picture: higher for more and finer edges, 0 for a flat picture.

    It depends on the picture's size: compare only pictures of one size. Reference: Pech-Pacheco et al., "Diatom
    autofocusing in brightfield microscopy", ICPR 2000.

    Args:
        picture: (H, W, 3) RGB, uint8.
    """
    return float(cv2.Laplacian(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.CV_64F).var())


def sharpness_counts(values: Sequence[float]) -> pd.Series:
    """Number of values for each label of SHARPNESS, in their order."""
    bounds, labels = zip(*SHARPNESS, strict=True)
    return pd.cut(pd.Series(values), [*bounds, np.inf], right=False, labels=labels).value_counts().reindex(labels)


def distribution(table: pd.DataFrame, names: Sequence[str] | None = None) -> pd.DataFrame:
    """Count the pictures of each class and split.

    Args:
        table: Rows as of `load_table`.
        names: Class names, in the order of the result's rows; by default those of the table, in label order.

    Returns:
        class_name, make and a column of counts for each of SPLITS.
    """
    names = list(names or class_names(table))
    counts = pd.crosstab(table["class_name"], table["split"]).reindex(names, columns=SPLITS, fill_value=0)
    makes = [parse_class_name(name).make for name in names]
    return (
        counts.rename_axis(None, axis=1)
        .reset_index(names="class_name")
        .assign(make=makes)[["class_name", "make", *SPLITS]]
    )


def save(folder: str | Path, table: pd.DataFrame, found: pd.DataFrame) -> None:
    """Write the measurements and the class distribution to `folder` as FILES, without local paths."""
    for file, rows in zip(FILES, (found, distribution(table)), strict=True):
        write_csv(rows, Path(folder) / file)


def _measure(path: str) -> dict[str, float] | str:
    """The measurements of one picture, or the reason why it cannot be read."""
    try:
        picture = np.asarray(load_photo(path))
    except PhotoError as error:
        return str(error)
    height, width = picture.shape[:2]
    red, green, blue = picture.mean((0, 1))
    return {
        "width": width, "height": height, "aspect_ratio": width / height,
        "red": red, "green": green, "blue": blue, "sharpness": sharpness(picture),
    }  # fmt: skip
