"""Listing of a source's pictures, as the readers (`layouts.py`, `parquet.py`) return it to `table.py`."""

import re
from dataclasses import dataclass, field

import pandas as pd

from twincar.config import TwinCarError, canonical_class_name

SPLIT_NAMES = {  # folder and file names that stand for a split
    "train": "train", "training": "train", "cars_train": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "cars_test": "test",
}  # fmt: skip
BOX = ["x1", "y1", "x2", "y2"]
COLUMNS = ["path", "split", "class_name", *BOX, "where", "reason"]  # of Listing.rows
CROP_FILE = "crop.json"  # marks a folder of pictures that are already cropped to their boxes (`twincar crop`)


class DataError(TwinCarError):
    """The data cannot be used; the message is one sentence for the user."""


@dataclass
class Listing:
    """The pictures of a source, not opened yet.

    Attributes:
        layout: Name of the source's layout.
        rows: One row for each picture, with COLUMNS. `split` is the source's own (train, val or test), `where` is the
            annotation's file and row, `reason` is why the row cannot be used, or "".
        names: Class names in label order, if the source defines them.
        notes: Sentences about what was left out.
    """

    layout: str
    rows: pd.DataFrame
    names: list[str] | None = None
    notes: list[str] = field(default_factory=list)


def lookup_class(class_id: float, names: list[str], where: str) -> tuple[str, str]:
    """Return the class of a class id, counted from 1: (class name, "") or ("", reason)."""
    if class_id in range(1, len(names) + 1):
        return names[int(class_id) - 1], ""
    return "", f"class id: {class_id:g} is not one of 1 to {len(names)} ({where})"


def folder_name(class_name: str) -> str:
    """Return a class name as a safe folder name: no separators, and no path outside the parent folder."""
    return re.sub(r'[\\:*?"<>|\x00-\x1f]', "_", canonical_class_name(class_name)).strip(". ") or "_"
