"""Detect the layout of a source and list its pictures; `table.py` turns the listing into a table.

`read_source` tries three readers, in this order:

    parquet    files with the columns `image` and `label`, on disk or in a Hub dataset ("owner/name"): `parquet.py`
    official   cars_train/, cars_test/ and the devkit's .mat files
    by class   [train|valid|test]/<class>/*.jpg, with Kaggle's anno_*.csv and names.csv if there are any

Each returns a `Listing` with one row for every picture that the source mentions, whether the file exists or not. No
picture is opened, and no validation split drawn, here. Boxes are converted to 0-based pixels with x2 and y2 exclusive,
as in PIL.
"""

import csv
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pandas as pd

from twincar.config import IMAGE_SUFFIXES, STANFORD_CARS, canonical_class_name
from twincar.data.listing import BOX, COLUMNS, CROP_FILE, SPLIT_NAMES, DataError, Listing, lookup_class
from twincar.data.parquet import download, read_parquet
from twincar.text import count


def read_source(
    source: str | Path, pictures: Path | None = None, endpoint: str | None = None, progress: bool = True
) -> Listing:
    """List the pictures of a source.

    A folder that `twincar crop` wrote is a source of its own, and never part of the source that it is in.

    Args:
        source: A folder, a parquet file or a Hub dataset "owner/name".
        pictures: Folder to write pictures from parquet files to; None raises for parquet files, which have no boxes.
        endpoint: Address of the Hub, if it is not huggingface.co.
        progress: Whether to show progress bars.

    Raises:
        DataError: No layout fits.
    """
    path = Path(os.path.abspath(Path(source).expanduser()))
    if not path.exists():
        if re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(source)):
            root, parquet = download(str(source), endpoint, progress)
            return read_parquet(f"Hub dataset {source}", root, parquet, pictures, progress)
        raise DataError(f"There is no {source}: give a folder, a parquet file or a Hub dataset such as owner/name.")
    if path.is_file():
        if path.suffix != ".parquet":
            raise DataError(f"{source} is neither a folder nor a .parquet file: unpack archives first.")
        return read_parquet(f"parquet file {path.name}", path.parent, [path], pictures, progress)
    folders = list(_folders_below(path, skip=pictures))
    if parquet := [f for folder in folders for f in sorted(folder.glob("*.parquet"))]:
        return read_parquet("parquet files", path, parquet, pictures, progress)
    annotations, names = _annotations(path, folders)
    listing = _official(folders, annotations, names) or _by_class(folders, annotations, names)
    if listing is None:
        raise DataError(
            f"No cars were found in {source}: expected cars_train/ with pictures and devkit/cars_train_annos.mat, "
            "train/<class>/*.jpg, <class>/*.jpg (two classes or more), or *.parquet with the columns image and label."
        )
    return listing


# Folders ---------------------------------------------------------------------------------------------------------


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = [Path(e.path) for e in os.scandir(folder) if e.is_dir() and not e.name.startswith((".", "__"))]
    except PermissionError:  # another user's folder next to the pictures
        return []
    return sorted(found, key=lambda p: p.name)


def _folders_below(root: Path, skip: Path | None, depth: int = 3) -> Iterator[Path]:
    """`root` and the folders below it, breadth first, without `skip` and the crops of an earlier run."""
    queue = deque([(root, 0)])
    while queue:
        folder, level = queue.popleft()
        if folder == skip or (level and (folder / CROP_FILE).is_file()):
            continue
        yield folder
        if level < depth:
            queue.extend((child, level + 1) for child in _subfolders(folder))


def _pictures(folder: Path) -> list[str]:
    """Names of the pictures directly in `folder`, without hidden files (macOS adds "._x.jpg" to archives)."""
    try:
        found = [e.name for e in os.scandir(folder) if not e.name.startswith(".")]
    except PermissionError:
        return []
    return sorted(name for name in found if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def _inner_folder(folder: Path) -> Path:
    """train/train -> the inner folder: archives are often unpacked this way."""
    return folder / folder.name if (folder / folder.name).is_dir() and not _pictures(folder) else folder


def _class_folders(folder: Path) -> list[Path]:
    """Folders that hold pictures and are not named after a split."""
    return [f for f in _subfolders(folder) if f.name.lower() not in SPLIT_NAMES and _pictures(f)]


# Annotations: the devkit's .mat files and Kaggle's .csv files --------------------------------------------------------


def _annotations(source: Path, folders: list[Path]) -> tuple[pd.DataFrame, list[str] | None]:
    """Read the annotations that are found.

    Returns:
        A table of split, file, class_id, box and where (`class_id` counts from 1, as in the files; NaN in test
        annotations without labels); the class names in label order, if there are any.
    """

    def find(name: str, candidates: Iterable[Path]) -> Path | None:
        return next((folder / name for folder in candidates if (folder / name).is_file()), None)

    parts: list[pd.DataFrame] = []
    names: list[str] | None = None
    if meta := find("cars_meta.mat", folders):
        names = [str(name).strip() for name in _as_list(_loadmat(meta).get("class_names"))]
    for split, files in (
        ("train", ["cars_train_annos.mat"]),
        ("test", ["cars_test_annos_withlabels.mat", "cars_test_annos.mat"]),
    ):
        if path := next((p for name in files if (p := find(name, folders))), None):
            rows = pd.DataFrame(_as_list(_loadmat(path).get("annotations")))
            rows = rows.rename(columns={f"bbox_{c}": c for c in BOX} | {"class": "class_id", "fname": "file"})
            parts.append(_clean(rows, split, path))
    if not parts:
        # Kaggle's tables may also be above the pictures' folder; above a folder of crops, they are the originals'.
        above = [] if (source / CROP_FILE).is_file() else list(source.parents)[:2]
        candidates = [*folders, *above]
        if path := find("names.csv", candidates):
            names = [line.strip().strip('"') for line in _read_text(path).splitlines() if line.strip()]
        for split in ("train", "test"):
            if path := find(f"anno_{split}.csv", candidates):
                parts.append(_clean(_read_csv(path), split, path))
    columns = ["split", "file", "class_id", *BOX, "where"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns), names


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except ValueError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): save it as UTF-8.") from error


def _read_csv(path: Path) -> pd.DataFrame:
    columns = ["file", *BOX, "class_id"]
    rows: list[list[Any]] = list(csv.reader(_read_text(path).splitlines()))
    for number, row in enumerate(rows, start=1):
        if row and len(row) != len(columns):
            raise DataError(
                f"{path} row {number} has {count(len(row), 'column')}: file, x1, y1, x2, y2 and class are expected."
            )
    return pd.DataFrame([row or [None] * len(columns) for row in rows], columns=columns)


def _clean(rows: pd.DataFrame, split: str, path: Path) -> pd.DataFrame:
    """Convert annotations of either kind to file, class_id, box, split and where."""
    if missing := [name for name in ("file", *BOX) if name not in rows.columns]:
        raise DataError(
            f"{path} holds no annotations, no {missing[0]} in row 1 (file name and box of each picture are needed): "
            "download the devkit again."
        )
    rows = rows.reindex(columns=["file", "class_id", *BOX]).assign(split=split)
    rows["file"] = [Path(str(name)).name for name in rows["file"]]
    rows["where"] = [f"{path.name} row {i}" for i in range(1, len(rows) + 1)]
    rows[["class_id", *BOX]] = rows[["class_id", *BOX]].apply(pd.to_numeric, errors="coerce").astype(float)
    rows[["x1", "y1"]] -= 1  # the files are 1-based with inclusive x2, y2, which equal 0-based exclusive x2, y2
    if path.suffix == ".csv":  # drop a header row, which holds no numbers
        rows = rows[rows[["class_id", *BOX]].notna().any(axis=1)]
    return rows.drop_duplicates("file")


def _loadmat(path: Path) -> dict:
    from scipy.io import loadmat

    try:
        return loadmat(path, simplify_cells=True)
    except Exception as error:  # on broken files, scipy raises ValueError, TypeError, zlib.error, ...
        raise DataError(f"{path} cannot be read as a MATLAB file ({error}): download the devkit again.") from error


def _as_list(value: Any) -> list:
    """A cell array as a list; `simplify_cells` replaces a cell array of one element by the element."""
    return [] if value is None else [value] if isinstance(value, (str, dict)) else list(value)


def _official(folders: list[Path], annotations: pd.DataFrame, names: list[str] | None) -> Listing | None:
    """The official layout, or None if it does not fit."""
    images: dict[str, tuple[Path, list[str]]] = {}
    for folder in folders:  # the first of each split counts
        if folder.name in ("cars_train", "cars_test") and (found := _pictures(folder)):
            images.setdefault(SPLIT_NAMES[folder.name], (folder, found))
    annotated = annotations[annotations["where"].str.contains(".mat", regex=False)]
    if "train" not in images or not (annotated["split"] == "train").any():
        return None
    names, rows, notes = names or list(STANFORD_CARS), [], []
    for split, listed in annotated.groupby("split", sort=False):
        if split not in images:
            notes.append(f"There are no pictures in cars_{split}/: {count(len(listed), 'annotated picture')} left out.")
            continue
        folder, found = images[split]
        if unlisted := len(set(found) - set(listed["file"])):
            notes.append(f"{count(unlisted, 'picture')} in {folder.name}/ without annotation left out.")
        if split == "test" and listed["class_id"].isna().all():
            notes.append(
                f"{count(len(set(found) & set(listed['file'])), 'test picture')} without label left out; "
                "with cars_test_annos_withlabels.mat next to the devkit they become the test split."
            )
            continue
        for row in listed.itertuples():
            class_name, reason = lookup_class(row.class_id, names, row.where)
            box = (row.x1, row.y1, row.x2, row.y2)
            rows.append((folder / row.file, split, class_name, *box, row.where, reason))
    if "test" in images and not (annotated["split"] == "test").any():
        notes.append("The test pictures have no annotations and are left out.")
    return Listing("official devkit", pd.DataFrame(rows, columns=COLUMNS), names, notes)


def _by_class(folders: list[Path], annotations: pd.DataFrame, names: list[str] | None) -> Listing | None:
    """Folders by class, or None if there are none."""
    notes = []
    splits: dict[str, list[Path]] = {}
    for folder in folders:
        for child in _subfolders(folder):
            split = SPLIT_NAMES.get(child.name.lower())
            if split and (classes := _class_folders(_inner_folder(child))):
                splits.setdefault(split, []).extend(classes)
        if splits:
            break
    else:
        classes = next((found for folder in folders if len(found := _class_folders(folder)) >= 2), [])
        if not classes:
            return None
        splits["train"] = classes
    class_names = {canonical_class_name(folder.name) for classes in splits.values() for folder in classes}
    if names and not class_names <= set(map(canonical_class_name, names)):
        names = None  # names.csv belongs to another dataset
    ids = names or list(STANFORD_CARS)
    if len(annotations) and not class_names <= set(map(canonical_class_name, ids)):
        notes.append("The annotations found are not about these classes and are not used.")
        annotations = annotations[:0]
    # Boxes are joined by split, class and file name. Annotated files that do not exist are listed too (as missing): the
    # validation split is drawn from all annotated pictures, and so does not change when a file is lost.
    boxes, elsewhere, mismatched = {}, {}, 0
    rows: list[tuple[Any, ...]] = []
    labeled = annotations["split"].isin(list(splits)) & annotations["class_id"].notna()
    for row in annotations[labeled].itertuples():
        class_name, reason = lookup_class(row.class_id, ids, row.where)
        boxes[row.split, canonical_class_name(class_name), row.file] = (row, class_name, reason)
        elsewhere[row.split, row.file] = (row.split, canonical_class_name(class_name), row.file)
    for split, classes in splits.items():
        for folder in classes:
            for file in _pictures(folder):
                key = (split, canonical_class_name(folder.name), file)
                row, _, reason = boxes.pop(key, (None, "", ""))
                if row is None and (other := elsewhere.get((split, file))) in boxes:
                    row, _, reason = boxes.pop(other)
                    if not reason:  # the classes differ: the box is another picture's
                        row, mismatched = None, mismatched + 1
                box = [getattr(row, c) for c in BOX] if row else [float("nan")] * 4
                rows.append((folder / file, split, folder.name, *box, row.where if row else "", reason))
    parents = {split: classes[0].parent for split, classes in splits.items()}
    for row, class_name, reason in boxes.values():
        path = parents[row.split] / canonical_class_name(class_name) / row.file
        rows.append((path, row.split, class_name, row.x1, row.y1, row.x2, row.y2, row.where, reason))
    if mismatched:
        notes.append(
            f"{count(mismatched, 'box', 'boxes')} not used: the annotation names another class than the folder."
        )
    # Sorted by file name, official pictures are in the devkit's order, which gives the same validation split.
    rows.sort(key=lambda r: (r[0].name, r[2]))
    layout = "folders by class" + (" with annotation tables" if len(annotations) else "")
    return Listing(layout, pd.DataFrame(rows, columns=COLUMNS), names, notes)
