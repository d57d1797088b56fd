"""What the readers of sources (`layouts.py`, `parquet.py`) hand to `dataset.py`: rows of pictures not yet opened."""

import re
from dataclasses import dataclass, field

import pandas as pd

from twincar.config import TwinCarError, canonical_class_name

SPLIT_NAMES = {  # folder and file names that mean a split
    "train": "train", "training": "train", "cars_train": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "cars_test": "test",
}  # fmt: skip
BOX = ["x1", "y1", "x2", "y2"]
COLUMNS = ["path", "split", "class_name", *BOX, "where", "reason"]  # of Listing.rows
CROP_FILE = "crop.json"  # marks a folder of pictures that are cut to their boxes already (`twincar crop`)


class DataError(TwinCarError):
    """What is wrong with the data and what to do about it, in one sentence for a person."""


@dataclass
class Listing:
    """What a source holds. `rows` has COLUMNS: `where` names the annotation's file and row, `reason` is "" or why the
    row cannot be used; `split` is what the source says (train, val or test)."""

    layout: str
    rows: pd.DataFrame
    names: list[str] | None = None  # class names in label order, where the source gives an order
    notes: list[str] = field(default_factory=list)


def class_of(class_id: float, names: list[str], where: str) -> tuple[str, str]:
    """(class name, "") or ("", reason)."""
    if class_id in range(1, len(names) + 1):
        return names[int(class_id) - 1], ""
    return "", f"class id: {class_id:g} is not one of 1 to {len(names)} ({where})"


def folder_name(class_name: str) -> str:
    """A class name as a folder: no separators, and nothing that leads out of the folder."""
    return re.sub(r'[\\:*?"<>|\x00-\x1f]', "_", canonical_class_name(class_name)).strip(". ") or "_"
