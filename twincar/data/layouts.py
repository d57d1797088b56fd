"""Finds out how a collection of cars is laid out and lists its pictures; `dataset.py` makes the table of them.

Three readers, tried in this order by `read_source`:

    parquet    files with columns `image` and `label`, on disk or in a dataset of the Hub ("owner/name"): `parquet.py`
    official   cars_train/, cars_test/ and the devkit's .mat files
    by class   [train|valid|test]/<class>/*.jpg, with Kaggle's anno_*.csv and names.csv where they are found

Each returns `Listing`: one row for every picture that the source speaks of, whether the file exists or not. Nothing is
opened or split here. Boxes become 0-based pixels with x2 and y2 exclusive (PIL's crop convention).
"""

import csv
import os
import re
from collections import deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import pandas as pd

from twincar.config import IMAGE_SUFFIXES, STANFORD_CARS, canonical_class_name
from twincar.data.listing import BOX, COLUMNS, CROP_FILE, SPLIT_NAMES, DataError, Listing, class_of
from twincar.data.parquet import download, read_parquet
from twincar.text import count


def read_source(
    source: str | Path, pictures: Path | None = None, endpoint: str | None = None, progress: bool = True
) -> Listing:
    """List the pictures of `source`, a folder, a parquet file or a Hub dataset. Pictures out of parquet files are
    written below `pictures`; None refuses parquet files, which have no boxes. A folder that `twincar crop` wrote is a
    source of its own, and never part of the one it lies in. Raises DataError where no layout fits."""
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
        if pictures is None:
            raise DataError(f"{source} holds parquet files, which have no boxes: give the devkit's or Kaggle's folder.")
        return read_parquet("parquet files", path, parquet, pictures, progress)
    annotations, names, notes = _annotations(path, folders)
    listing = _official(folders, annotations, names, notes) or _by_class(folders, annotations, names, notes)
    if listing is None:
        raise DataError(
            f"No cars were found in {source}: looked for cars_train/ with pictures and devkit/cars_train_annos.mat, "
            "train/<class>/*.jpg, <class>/*.jpg (two classes or more), and *.parquet with the columns image and label."
        )
    return listing


# Folders ---------------------------------------------------------------------------------------------------------


def _subfolders(folder: Path) -> list[Path]:
    try:
        found = [Path(e.path) for e in os.scandir(folder) if e.is_dir() and not e.name.startswith((".", "__"))]
    except PermissionError:  # somebody else's folder beside the pictures
        return []
    return sorted(found, key=lambda p: p.name)


def _folders_below(root: Path, skip: Path | None, depth: int = 3) -> Iterator[Path]:
    """`root` and the folders below it, the nearest first; `skip` and crops are what an earlier run wrote."""
    queue = deque([(root, 0)])
    while queue:
        folder, level = queue.popleft()
        if folder == skip or (level and (folder / CROP_FILE).is_file()):
            continue
        yield folder
        if level < depth:
            queue.extend((child, level + 1) for child in _subfolders(folder))


def _pictures(folder: Path) -> list[str]:
    """Names of the pictures directly in `folder`; "._x.jpg", which macOS leaves in archives, is none."""
    try:
        found = [e.name for e in os.scandir(folder) if not e.name.startswith(".")]
    except PermissionError:
        return []
    return sorted(name for name in found if Path(name).suffix.lower() in IMAGE_SUFFIXES)


def _undouble(folder: Path) -> Path:
    """train/train -> the inner one, as archives are often unpacked."""
    return folder / folder.name if (folder / folder.name).is_dir() and not _pictures(folder) else folder


def _class_folders(folder: Path) -> list[Path]:
    return [f for f in _subfolders(folder) if f.name.lower() not in SPLIT_NAMES and _pictures(f)]


# Annotations: the devkit's .mat files and Kaggle's .csv files --------------------------------------------------------


def _annotations(source: Path, folders: list[Path]) -> tuple[pd.DataFrame, list[str] | None, list[str]]:
    """(split, file, class_id, box, where) of everything annotated; class names in label order, if told; notes.
    `class_id` counts from 1, as in the files; it is NaN in test annotations without labels."""

    def find(name: str, places: Iterable[Path]) -> Path | None:
        return next((place / name for place in places if (place / name).is_file()), None)

    parts, names, notes = [], None, []
    if meta := find("cars_meta.mat", folders):
        names = [str(name).strip() for name in _as_list(_loadmat(meta).get("class_names"))]
    for split, files in (
        ("train", ["cars_train_annos.mat"]),
        ("test", ["cars_test_annos_withlabels.mat", "cars_test_annos.mat"]),
    ):
        if path := next((p for name in files if (p := find(name, folders))), None):
            rows = pd.DataFrame(_as_list(_loadmat(path).get("annotations")))
            rows = rows.rename(columns={f"bbox_{c}": c for c in BOX} | {"class": "class_id", "fname": "file"})
            parts.append(_cleaned(rows, split, path))
    if not parts:  # Kaggle's tables may lie above the pictures' folder as well as below
        above = [] if (source / CROP_FILE).is_file() else list(source.parents)[:2]  # boxes of the uncut pictures
        places = [*folders, *above]
        if path := find("names.csv", places):
            names = [line.strip().strip('"') for line in _read_text(path).splitlines() if line.strip()]
        for split in ("train", "test"):
            if path := find(f"anno_{split}.csv", places):
                parts.append(_cleaned(_read_csv(path), split, path))
    columns = ["split", "file", "class_id", *BOX, "where"]
    return pd.concat(parts) if parts else pd.DataFrame(columns=columns), names, notes


def _read_text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except ValueError as error:
        raise DataError(f"{path} is not UTF-8 text ({error}): save it as such.") from error


def _read_csv(path: Path) -> pd.DataFrame:
    columns = ["file", *BOX, "class_id"]
    rows = list(csv.reader(_read_text(path).splitlines()))
    for number, row in enumerate(rows, start=1):
        if row and len(row) != len(columns):
            raise DataError(
                f"{path} row {number} has {count(len(row), 'column')}: file, x1, y1, x2, y2 and class are expected."
            )
    return pd.DataFrame([row or [None] * len(columns) for row in rows], columns=columns)


def _cleaned(rows: pd.DataFrame, split: str, path: Path) -> pd.DataFrame:
    if missing := [name for name in ("file", *BOX) if name not in rows.columns]:
        raise DataError(
            f"{path} holds no annotations, no {missing[0]} in row 1 (file name and box of each picture are needed): "
            "download the devkit again."
        )
    rows = rows.reindex(columns=["file", "class_id", *BOX]).assign(split=split)
    rows["file"] = [Path(str(name)).name for name in rows["file"]]
    rows["where"] = [f"{path.name} row {i}" for i in range(1, len(rows) + 1)]
    rows[["class_id", *BOX]] = rows[["class_id", *BOX]].apply(pd.to_numeric, errors="coerce").astype(float)
    rows[["x1", "y1"]] -= 1  # the files count from 1 and include x2, y2: exclusive and 0-based these keep their number
    if path.suffix == ".csv":  # a heading that somebody added: no number in it
        rows = rows[rows[["class_id", *BOX]].notna().any(axis=1)]
    return rows.drop_duplicates("file")


def _loadmat(path: Path) -> dict:
    from scipy.io import loadmat

    try:
        return loadmat(path, simplify_cells=True)
    except Exception as error:  # scipy raises whatever the bytes lead it to: ValueError, TypeError, zlib.error, ...
        raise DataError(f"{path} cannot be read as a MATLAB file ({error}): download the devkit again.") from error


def _as_list(value: object) -> list:
    """simplify_cells turns a cell with one element into that element."""
    return [] if value is None else [value] if isinstance(value, (str, dict)) else list(value)


def _official(
    folders: list[Path], annotations: pd.DataFrame, names: list[str] | None, notes: list[str]
) -> Listing | None:
    images = {}
    for folder in folders:  # the nearest first
        if folder.name in ("cars_train", "cars_test") and (found := _pictures(folder)):
            images.setdefault(SPLIT_NAMES[folder.name], (folder, found))
    annotated = annotations[annotations["where"].str.contains(".mat", regex=False)]
    if "train" not in images or not (annotated["split"] == "train").any():
        return None
    names, rows = names or list(STANFORD_CARS), []
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
                "with cars_test_annos_withlabels.mat beside the devkit they become the test split."
            )
            continue
        for row in listed.itertuples():
            class_name, reason = class_of(row.class_id, names, row.where)
            box = (row.x1, row.y1, row.x2, row.y2)
            rows.append((folder / row.file, split, class_name, *box, row.where, reason))
    if "test" in images and not (annotated["split"] == "test").any():
        notes.append("The test pictures have no annotations and were left out.")
    return Listing("official devkit", pd.DataFrame(rows, columns=COLUMNS), names, notes)


def _by_class(
    folders: list[Path], annotations: pd.DataFrame, names: list[str] | None, notes: list[str]
) -> Listing | None:
    splits: dict[str, list[Path]] = {}
    for folder in folders:
        for child in _subfolders(folder):
            split = SPLIT_NAMES.get(child.name.lower())
            if split and (classes := _class_folders(_undouble(child))):
                splits.setdefault(split, []).extend(classes)
        if splits:
            break
    else:
        classes = next((found for folder in folders if len(found := _class_folders(folder)) >= 2), None)
        if classes is None:
            return None
        splits["train"] = classes
    found = {canonical_class_name(folder.name) for classes in splits.values() for folder in classes}
    if names and not found <= set(map(canonical_class_name, names)):
        names = None  # somebody else's names.csv
    ids = names or list(STANFORD_CARS)
    if len(annotations) and not found <= set(map(canonical_class_name, ids)):
        notes.append("The annotations found are not about these classes and were not used.")
        annotations = annotations[:0]
    # Boxes join by split, class and file name. Annotated files that are not there are listed too (as missing): the
    # validation pictures are drawn from all that is annotated, and so stay the same when a file gets lost.
    boxes, elsewhere, rows, mismatched = {}, {}, [], 0
    told = annotations["split"].isin(list(splits)) & annotations["class_id"].notna()
    for row in annotations[told].itertuples():
        class_name, reason = class_of(row.class_id, ids, row.where)
        boxes[row.split, canonical_class_name(class_name), row.file] = (row, class_name, reason)
        elsewhere[row.split, row.file] = (row.split, canonical_class_name(class_name), row.file)
    for split, classes in splits.items():
        for folder in classes:
            for file in _pictures(folder):
                key = (split, canonical_class_name(folder.name), file)
                row, _, reason = boxes.pop(key, (None, "", ""))
                if row is None and (other := elsewhere.get((split, file))) in boxes:
                    row, _, reason = boxes.pop(other)
                    if not reason:  # the folder and the annotation name different classes: another picture's box
                        row, mismatched = None, mismatched + 1
                box = [getattr(row, c) for c in BOX] if row else [float("nan")] * 4
                rows.append((folder / file, split, folder.name, *box, row.where if row else "", reason))
    home = {split: classes[0].parent for split, classes in splits.items()}
    for row, class_name, reason in boxes.values():
        path = home[row.split] / canonical_class_name(class_name) / row.file
        rows.append((path, row.split, class_name, row.x1, row.y1, row.x2, row.y2, row.where, reason))
    if mismatched:
        notes.append(
            f"{count(mismatched, 'box', 'boxes')} not used: the annotation names another class than the folder."
        )
    # By file name, official pictures stand in the devkit's order, and so the same of them are drawn for validation.
    rows.sort(key=lambda r: (r[0].name, r[2]))
    layout = "folders by class" + (" with annotation tables" if len(annotations) else "")
    return Listing(layout, pd.DataFrame(rows, columns=COLUMNS), names, notes)
