"""Dataset preparation: any layout of Stanford Cars, or of your own cars, becomes one table.

    twincar prepare SOURCE --out data/      # SOURCE: a folder, parquet files, or owner/name on the Hugging Face Hub

writes `data/cars.csv` (one row for each usable picture, with COLUMNS), `data/rejected.csv` (the other pictures, with
the reason) and `data/duplicates.csv` (usable pictures that show the same photo).
From Python: `prepare("tanganke/stanford_cars", "data")`, then `load_table("data")`.

The validation split is drawn from all annotated training pictures, in the devkit's order, before any is rejected. So
every layout of Stanford Cars gives the same 7,329 / 815 pictures, even if files are missing; but not car_ims/, whose
files are numbered differently.
"""

import math
import os
import unicodedata
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from twincar.config import STANFORD_CARS, canonical_class_name, parse_class_name
from twincar.data.duplicates import SIDE, duplicate_groups
from twincar.data.layouts import read_source
from twincar.data.listing import BOX, DataError, Listing, describe_unused
from twincar.data.validation import clip_box, read_thumbnail, read_valid
from twincar.files import atomic_write, locked, pictures_below, remove_leftovers
from twincar.text import count

__all__ = ["COLUMNS", "SPLITS", "DataError", "Summary", "class_names", "load_table", "prepare", "stratified_split"]

COLUMNS = ["path", "label", "class_name", "make", "model", "body", "year", *BOX, "split"]
SPLITS = ("train", "val", "test", "holdout")


@dataclass(frozen=True)
class Summary:
    """Result of `prepare`.

    Attributes:
        table: Path of cars.csv.
        layout: Name of the source's layout.
        n_classes: Number of classes.
        is_stanford_cars: Whether the classes, and so the labels, are those of Stanford Cars.
        splits: Usable pictures of each split.
        rejected: Rejected pictures by reason (its first words).
        boxes: Usable pictures that have a box.
        notes: Sentences about what was left out.
        unused: Pictures below the source that are not in the table or rejected: (folder, reason, number), most first.
    """

    table: Path
    layout: str
    n_classes: int
    is_stanford_cars: bool
    splits: dict[str, int]
    rejected: dict[str, int]
    boxes: int
    notes: tuple[str, ...] = ()
    unused: tuple[tuple[str, str, int], ...] = ()

    def describe(self) -> str:
        """Summarize in a few sentences, one per line."""
        usable, rejected = sum(self.splits.values()), sum(self.rejected.values())
        classes = "Stanford Cars, labels in the devkit's order" if self.is_stanford_cars else "labels of this dataset"
        lines = [
            f"Layout: {self.layout}; {count(self.n_classes, 'class', 'classes')} ({classes}).",
            f"{count(usable, 'picture')}: " + ", ".join(f"{n:,} {s}" for s, n in self.splits.items() if n) + ".",
            "Boxes: " + {0: "none.", usable: "every picture has one."}.get(self.boxes, f"{self.boxes:,} pictures."),
        ]
        if rejected:
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.rejected.items())
            lines.append(
                f"{count(rejected, 'picture')} rejected ({reasons}): see {self.table.parent / 'rejected.csv'}."
            )
        return "\n".join([*lines, *describe_unused(self.unused), *self.notes, f"Wrote {self.table}."])


def prepare(
    source: str | Path,
    out: str | Path,
    *,
    seed: int = 42,
    val_size: float = 0.1,
    holdout: str | Path | None = None,
    keep_test: bool = True,
    progress: bool = True,
    endpoint: str | None = None,
) -> Summary:
    """Prepare a dataset: write `out`/cars.csv, `out`/rejected.csv and `out`/duplicates.csv.

    A run that was killed can be started again: tables are written atomically, and pictures that are already written
    are kept.

    Args:
        source: A folder in any layout of `layouts.py`, a parquet file, or a Hub dataset "owner/name".
        out: Folder for the tables; pictures from parquet files go to `out`/pictures.
        seed: Random seed of the split.
        val_size: Fraction of the training pictures to validate on, in [0, 1). Unused, as is `seed`, if the source has
            validation pictures of its own.
        holdout: A folder of pictures, or a text file with one file name per line. Training pictures with these names
            get the split "holdout" and are not trained on; validation and test pictures are unchanged.
        keep_test: Whether the table includes the test pictures.
        progress: Whether to show progress bars.
        endpoint: Address of the Hub, if it is not huggingface.co.

    Raises:
        DataError: No layout fits, a file cannot be read or written, the Hub cannot be reached, or no picture is usable.
    """
    if not 0 <= val_size < 1:
        raise DataError(
            f"val_size is {val_size}: it is a fraction of the training pictures, at least 0 and less than 1."
        )
    held_out = _holdout_names(holdout)
    out = Path(os.path.abspath(Path(out).expanduser()))
    listing = read_source(source, out / "pictures", endpoint, progress)
    rows, notes = listing.rows.reset_index(drop=True), list(listing.notes)
    notes += _spelling_notes(rows["class_name"])
    if not keep_test:
        rows = rows[rows["split"] != "test"].reset_index(drop=True)
    rows["class_name"], rows["label"], is_stanford_cars = label_rows(listing, rows["class_name"])

    # The split is drawn first, so that it does not depend on which files are damaged or missing.
    if (rows["split"] == "val").any():
        notes.append("The source's own validation pictures are used.")
    else:
        candidates = rows.index[(rows["split"] == "train") & (rows["label"] >= 0)]
        is_val = stratified_split(rows.loc[candidates, "label"], val_size, seed)
        rows.loc[candidates[is_val], "split"] = "val"
    if held_out:
        is_named = pd.Series([Path(p).name in held_out for p in rows["path"]], index=rows.index, dtype=bool)
        rows.loc[is_named & (rows["split"] == "train"), "split"] = "holdout"

    thumbnails = _validate(rows, progress)
    usable = rows[rows["reason"] == ""].copy()
    rejected = rows[rows["reason"] != ""]
    if held_out:
        counts = usable.loc[is_named[usable.index], "split"].value_counts()
        notes.append(
            f"Of {count(len(held_out), 'file name')} to hold out, {counts.get('holdout', 0):,} are held out and "
            f"{counts.get('val', 0):,} stay validation pictures."
        )
    if not is_stanford_cars and len(usable):  # labels stay consecutive if a class has no usable picture
        if lost := sorted(set(rows["class_name"]) - set(usable["class_name"]) - {""}):
            notes.append(
                f"{count(len(lost), 'class', 'classes')} without a usable picture left out: {', '.join(lost)}."
            )
        usable["label"] = usable["label"].rank(method="dense").astype(int) - 1

    notes += _class_notes(usable)
    _write(rejected[["path", "reason"]].assign(path=_relative(rejected["path"], out)), out / "rejected.csv")
    reasons = Counter(reason.split(":")[0] for reason in rejected["reason"])
    if not len(usable):
        found = ", ".join(f"{n:,} {reason}" for reason, n in reasons.items()) or "none was listed"
        first = f", the first is {rejected['reason'].iloc[0]}" if len(rejected) else ""
        raise DataError(f"No usable picture in {source} ({found}{first}): see {out / 'rejected.csv'} for all reasons.")
    cars = [parse_class_name(name) for name in usable["class_name"]]
    for column in ("make", "model", "body", "year"):
        usable[column] = pd.Series([getattr(car, column) for car in cars], index=usable.index, dtype=object)
    usable["path"] = _relative(usable["path"], out)
    usable[BOX] = usable[BOX].round().astype("Int64")
    photo = duplicate_groups(thumbnails[usable.index])
    copies = usable[["path", "split", "class_name"]].assign(photo=photo)[photo >= 0].sort_values("photo", kind="stable")
    notes += _duplicate_notes(copies, out)
    _write(copies[["photo", "path", "split", "class_name"]], out / "duplicates.csv")
    _write(usable[COLUMNS], out / "cars.csv")
    return Summary(
        table=out / "cars.csv",
        layout=listing.layout,
        n_classes=usable["label"].nunique(),
        is_stanford_cars=is_stanford_cars,
        splits={split: int((usable["split"] == split).sum()) for split in SPLITS},
        rejected=dict(reasons.most_common()),
        boxes=int(usable["x1"].notna().sum()),
        notes=tuple(notes),
        unused=tuple(listing.unused),
    )


def stratified_split(
    labels: Sequence[int] | np.ndarray | pd.Series, val_size: float = 0.1, seed: int = 42
) -> np.ndarray:
    """Draw a stratified validation split.

    Equal to `sklearn.model_selection.train_test_split(..., test_size=val_size, stratify=labels, random_state=seed)`
    where that is possible. Otherwise (a class of one picture, more classes than validation pictures) it is an
    approximation. Every class keeps at least one training picture.

    Args:
        labels: (N,) labels.
        val_size: Fraction to draw, in [0, 1).
        seed: Random seed.

    Returns:
        (N,) bool, True for validation.
    """
    from sklearn.model_selection import train_test_split

    targets = np.asarray(labels)
    is_val = np.zeros(len(targets), dtype=bool)
    _, inverse, counts = np.unique(targets, return_inverse=True, return_counts=True)
    eligible = np.flatnonzero(counts[inverse] >= 2)
    n_classes = int((counts >= 2).sum())
    n_val = math.ceil(len(eligible) * val_size)  # sklearn rounds up too
    if n_val == 0:
        return is_val
    if n_classes <= n_val <= len(eligible) - n_classes:
        _, val = train_test_split(eligible, test_size=val_size, stratify=targets[eligible], random_state=seed)
        is_val[val] = True
        return is_val
    left = counts.copy()
    for i in np.random.default_rng(seed).permutation(eligible):
        if left[inverse[i]] > 1 and is_val.sum() < n_val:
            is_val[i] = True
            left[inverse[i]] -= 1
    return is_val


def load_table(data_dir: str | Path) -> pd.DataFrame:
    """Read the table that `prepare` wrote to `data_dir`.

    Returns:
        COLUMNS: absolute paths as str, `label` as int, `year` as Int64 (NA if the class name has none), and the box in
        pixels as float, 0-based, x2 and y2 exclusive (NaN if there is none).

    Raises:
        DataError: The table does not exist or was not written by `prepare`.
    """
    table, command = Path(data_dir) / "cars.csv", f"run `twincar prepare SOURCE --out {data_dir}`"
    if not table.is_file():
        raise DataError(f"There is no {table}: {command} first.")
    try:
        rows = pd.read_csv(table, dtype=str, keep_default_na=False)  # a class called "NA" must stay a string
    except (ValueError, OSError) as error:
        raise DataError(f"{table} cannot be read ({str(error).strip()}): {command} again.") from error
    if missing := [c for c in COLUMNS if c not in rows.columns]:
        raise DataError(f"{table} has no column {', '.join(missing)}: {command} again.")
    rows = rows[COLUMNS]
    if rows.empty:
        raise DataError(f"{table} has no rows: {command} again.")
    if wrong := sorted(set(rows["split"]) - set(SPLITS)):
        raise DataError(
            f"{table} has the split {wrong[0]!r}, which is not one of {', '.join(SPLITS)}: {command} again."
        )
    try:
        numbers = rows[["year", *BOX]].replace("", None).apply(pd.to_numeric)
        rows = rows.assign(label=rows["label"].astype(int), year=numbers["year"].astype("Int64"))
        rows[BOX] = numbers[BOX].astype(float)
    except (ValueError, TypeError) as error:
        raise DataError(f"{table} has text instead of a number ({error}): {command} again.") from error
    base = os.path.abspath(data_dir)
    return rows.assign(path=[os.path.normpath(os.path.join(base, p)) for p in rows["path"]])


def class_names(table: pd.DataFrame) -> tuple[str, ...]:
    """Return a table's class names in label order: name i belongs to label i.

    For Stanford Cars these are always all 196, in the devkit's order, even if a class has no picture in `table`.

    Raises:
        DataError: Labels and names do not match.
    """
    pairs = table[["label", "class_name"]].drop_duplicates().sort_values("label")
    labels, names = pairs["label"].tolist(), tuple(pairs["class_name"])
    n = len(STANFORD_CARS)
    if labels and all(0 <= i < n and STANFORD_CARS[i] == name for i, name in zip(labels, names, strict=True)):
        return STANFORD_CARS
    if labels != list(range(len(labels))):
        raise DataError(
            "The table's labels are not 0, 1, 2, ... with one class name each: run `twincar prepare` again."
        )
    return names


def label_rows(listing: Listing, found: pd.Series) -> tuple[list[str], list[int], bool]:
    """Assign class names and labels to the rows of a listing.

    Spellings of one class are equal (`canonical_class_name`). The devkit's is used, else that of the first occurrence.

    Args:
        listing: The source's listing, for its class names.
        found: The class name of each row, as found.

    Returns:
        The class name of each row, the label of each row (-1 for a row without a class), and whether the classes are
        those of Stanford Cars.
    """
    stanford = {canonical_class_name(name): name for name in STANFORD_CARS}
    names = [unicodedata.normalize("NFC", name.strip()) for name in [*(listing.names or []), *found]]
    spelling = {canonical_class_name(name): name for name in reversed(names) if name}
    is_stanford_cars = bool(spelling) and set(spelling) <= set(stanford)
    if is_stanford_cars:
        spelling, order = stanford, list(stanford)
    elif listing.names:
        order = list(dict.fromkeys(canonical_class_name(name) for name in [*listing.names, *found] if name))
    else:
        order = sorted(spelling, key=lambda key: spelling[key].replace("/", "-"))
    label = {name: i for i, name in enumerate(order)}
    keys = [canonical_class_name(name) for name in found]
    return [spelling.get(key, "") for key in keys], [label.get(key, -1) for key in keys], is_stanford_cars


def _holdout_names(holdout: str | Path | None) -> set[str]:
    """File names in a folder, or in a text file with one name per line."""
    if holdout is None:
        return set()
    path = Path(holdout).expanduser()
    if path.is_dir():
        names = {p.name for p in pictures_below(path)}
    elif path.is_file():
        try:
            names = {Path(line.strip()).name for line in path.read_text("utf-8-sig").splitlines() if line.strip()}
        except UnicodeDecodeError as error:
            raise DataError(f"{holdout} is not a text file: give one file name per line, or a folder.") from error
    else:
        raise DataError(f"There is no {holdout}: holdout is a folder of pictures or a text file of file names.")
    if not names:
        raise DataError(f"{holdout} names no pictures: holdout is a folder of pictures or a text file of file names.")
    return names


# Validation ----------------------------------------------------------------------------------------------------------


def _validate(rows: pd.DataFrame, progress: bool) -> np.ndarray:
    """Set `reason` of unusable rows and clip the boxes of the others, in place. Returns all rows' thumbnails."""
    todo = np.flatnonzero(rows["reason"] == "")
    thumbnails = np.zeros((len(rows), SIDE, SIDE), np.uint8)
    boxes, reasons = rows[BOX].to_numpy(dtype=float, copy=True), rows["reason"].tolist()
    with warnings.catch_warnings(), ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        warnings.simplefilter("ignore")  # PIL's about huge pictures (rejected below) and odd EXIF (harmless)
        found = pool.map(lambda path: read_valid(path, read_thumbnail), rows["path"].iloc[todo])
        for i, result in zip(todo, track(found, "Checking", total=len(todo), disable=not progress), strict=True):
            if isinstance(result, str):
                reasons[i] = result
                continue
            size, thumbnails[i] = result
            if not np.isnan(boxes[i]).all():
                box = clip_box(boxes[i], *size, f"{Path(rows['path'].iloc[i]).name}, {rows['where'].iloc[i]}")
                if isinstance(box, str):
                    reasons[i] = box
                else:
                    boxes[i] = box
    rows["reason"], rows[BOX] = reasons, boxes
    return thumbnails


def _spelling_notes(found: pd.Series) -> list[str]:
    """A sentence about classes that are written in several ways, if there are any."""
    spellings: dict[str, dict[str, None]] = {}
    for name in found.drop_duplicates():
        spellings.setdefault(canonical_class_name(name), {})[name] = None
    several = [list(names) for names in spellings.values() if len(names) > 1]
    if not several:
        return []
    example = " = ".join(several[0][:3])
    return [f"{count(len(several), 'class', 'classes')} written in several ways, read as one each: {example}."]


def _class_notes(usable: pd.DataFrame) -> list[str]:
    """Sentences about classes that cannot be trained, if there are any."""
    trained = set(usable.loc[usable["split"].isin(["train", "holdout"]), "class_name"])
    names = sorted(set(usable["class_name"]))
    notes = ["There is one class only: training needs two or more."] if len(names) == 1 else []
    if trained and (untrained := [name for name in names if name not in trained]):
        more = f" and {len(untrained) - 5:,} more" if len(untrained) > 5 else ""
        notes.append(
            f"{count(len(untrained), 'class', 'classes')} without a training picture: {', '.join(untrained[:5])}{more}."
        )
    return notes


def _duplicate_notes(copies: pd.DataFrame, out: Path) -> list[str]:
    """A sentence about duplicates, if there are any."""
    photos = copies.groupby("photo")
    if not len(photos):
        return []
    across = photos["split"].agg(lambda splits: "/".join(s for s in SPLITS if s in set(splits)))
    leaks = across[across.str.contains("/")].value_counts()
    leak_text = ", ".join(f"{n:,} of them in {splits}" for splits, n in leaks.items()) or "none across splits"
    names = int((photos["class_name"].nunique() > 1).sum())
    return [
        f"{count(len(photos), 'photo')} found more than once ({leak_text}; {names:,} under different class names): "
        f"see {out / 'duplicates.csv'}."
    ]


# Writing -------------------------------------------------------------------------------------------------------------


def _relative(paths: Sequence[Path], out: Path) -> list[str]:
    """Relative paths for pictures inside `out`, so that the folder can be moved; absolute paths for others."""
    return [p.relative_to(out).as_posix() if p.is_relative_to(out) else str(p) for p in map(Path, paths)]


def _write(rows: pd.DataFrame, path: Path) -> None:
    """Write a table atomically, one process at a time."""
    try:
        with locked(path.with_name(".lock")):
            remove_leftovers(path.parent, path.name)
            with atomic_write(path) as temporary:
                rows.to_csv(temporary, index=False, encoding="utf-8")
    except OSError as error:
        raise DataError(f"{path} cannot be written ({error.strerror}): choose another folder.") from error
