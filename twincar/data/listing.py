"""Listing of a source's pictures, as the readers (`layouts.py`, `parquet.py`) return it to `table.py`."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import pandas as pd

from twincar.config import TwinCarError
from twincar.text import count

SPLIT_NAMES = {  # folder and file names that stand for a split
    "train": "train", "training": "train", "trainset": "train", "cars_train": "train",
    "val": "val", "valid": "val", "validation": "val", "valset": "val",
    "test": "test", "testing": "test", "testset": "test", "cars_test": "test",
}  # fmt: skip
SET_WORDS = frozenset(
    (
        "cars", "data", "dataset", "images", "imgs", "photos", "pictures", "set", "split",
    )
)  # fmt: skip  # as in "Train_set"
BOX = ["x1", "y1", "x2", "y2"]
COLUMNS = ["path", "split", "class_name", *BOX, "where", "reason"]  # of Listing.rows
MOST_SHOWN = 6  # folders in the sentence about unused pictures
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
        unused: Pictures below the source that are not among the rows: (folder, reason, number), most first.
    """

    layout: str
    rows: pd.DataFrame
    names: list[str] | None = None
    notes: list[str] = field(default_factory=list)
    unused: list[tuple[str, str, int]] = field(default_factory=list)


def describe_unused(unused: Sequence[tuple[str, str, int]]) -> list[str]:
    """A sentence about the pictures that are not used (`Listing.unused`), if there are any."""
    if not unused:
        return []
    shown = [f"{n:,} in {where} ({why})" for where, why, n in unused[:MOST_SHOWN]]
    if rest := unused[MOST_SHOWN:]:
        shown.append(f"{sum(n for *_, n in rest):,} in {count(len(rest), 'other folder')}")
    return [f"{count(sum(n for *_, n in unused), 'picture')} not used: {', '.join(shown)}."]


def split_of(name: str) -> str | None:
    """The split that a folder's name stands for, such as "train", "Train_set" or "cars_test", or None."""
    words = [word for word in re.split(r"[\s_.-]+", name.lower()) if word not in SET_WORDS]
    return SPLIT_NAMES.get(words[0]) if len(words) == 1 else None


def lookup_class(class_id: float, names: list[str], where: str) -> tuple[str, str]:
    """Return the class of a class id, counted from 1: (class name, "") or ("", reason)."""
    if class_id in range(1, len(names) + 1):
        return names[int(class_id) - 1], ""
    return "", f"class id: {class_id:g} is not one of 1 to {len(names)} ({where})"


def folder_name(class_name: str) -> str:
    """Return a class name as a safe folder name: no separators, and no path outside the parent folder."""
    return re.sub(r'[\\:*?"<>|\x00-\x1f]', "_", class_name.strip().replace("/", "-")).strip(". ") or "_"
