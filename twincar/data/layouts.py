"""Detect the layout of a source and list its pictures; `table.py` turns the listing into a table.

`read_source` tries these readers, in this order:

    parquet    files with the columns `image` and `label`, on disk or in a Hub dataset ("owner/name"), and .arrow files
               that `datasets.save_to_disk` wrote: `parquet.py`
    official   cars_train/, cars_test/ and the devkit's .mat files; or car_ims/ with cars_annos.mat
    by class   [train|valid|test]/<class>/*.jpg or <make>/<model>/<year>/*.jpg, with Kaggle's anno_*.csv and names.csv
               if there are any: `tree.py`

Each returns a `Listing` with one row for every picture that the source mentions, whether the file exists or not, and a
count of the pictures below the source that it does not use. No picture is opened, and no validation split drawn, here.
Boxes are converted to 0-based pixels with x2 and y2 exclusive, as in PIL.
"""

import csv
import os
import re
import tarfile
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from twincar.config import STANFORD_CARS, canonical_class_name
from twincar.data.listing import BOX, COLUMNS, CROP_FILE, SPLIT_NAMES, DataError, Listing, folder_name, lookup_class
from twincar.data.parquet import download, read_parquet
from twincar.data.tree import (
    UNLISTED,
    ClassFolder,
    Folder,
    count_unused,
    describe_tree,
    find_classes,
    refuse_detection,
    scan,
)
from twincar.text import count

ARCHIVES = frozenset((".tar", ".tgz", ".gz", ".bz2", ".xz", ".zip", ".7z", ".rar"))
MAT_COLUMNS = {f"bbox_{c}": c for c in BOX} | {"class": "class_id", "fname": "file", "relative_im_path": "file"}


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
        if path.suffix not in (".parquet", ".arrow"):
            raise DataError(f"{source} is neither a folder nor a .parquet file: {_unpack([path])}.")
        return read_parquet(f"{path.suffix[1:]} file {path.name}", path.parent, [path], pictures, progress)
    tree = scan(path, skip=pictures)
    listing = _read_folder(path, tree, pictures, progress)
    if unlisted := [folder for folder in tree.walk(ignored=True) if folder.ignored == UNLISTED]:
        listing.notes.append(f"{count(len(unlisted), 'folder')} cannot be listed, such as {unlisted[0].path}.")
    return listing


def _read_folder(path: Path, tree: Folder, pictures: Path | None, progress: bool) -> Listing:
    near = [folder for folder in tree.walk() if len(folder.parts) <= 3]
    for suffix in (".parquet", ".arrow"):
        holding = [folder.path for folder in near if folder.suffixes[suffix]]
        # cache-*.arrow: what `datasets` computed from the others
        if files := [f for f in _files(holding, f"*{suffix}") if not f.name.startswith(("cache-", "."))]:
            listing = read_parquet(f"{suffix[1:]} files", path, files, pictures, progress)
            listing.unused = count_unused(tree, set(map(str, listing.rows["path"])), f"not in {suffix} files", {})
            return listing
    folders = [folder.path for folder in near]
    annotations, names = _annotations(path, folders)
    reasons: dict[Path, str] = {}
    reason = "not of the official layout"
    if official := _official(near, annotations, names, reasons) or _car_ims(near, reasons):
        listing = official
    else:
        refuse_detection(tree)
        classes, notes = find_classes(tree)
        if not classes:
            raise DataError(
                f"No cars were found in {path}: expected cars_train/ with pictures and devkit/cars_train_annos.mat, "
                "train/<class>/*.jpg, <class>/*.jpg (two classes or more), <make>/<model>/*.jpg, or *.parquet with the "
                f"columns image and label; {describe_tree(tree)}{_other_formats(tree)}."
            )
        listing, reason = _by_class(classes, annotations, names), "not in a class folder"
        listing.notes[:0] = notes
    listing.unused = count_unused(tree, set(map(str, listing.rows["path"])), reason, reasons)
    return listing


def _files(folders: Iterable[Path], pattern: str) -> list[Path]:
    return [file for folder in folders for file in sorted(folder.glob(pattern))]


def _other_formats(tree: Folder) -> str:
    """What to do with tar files, or a devkit of other pictures, if there are any."""
    archives = [f for folder in tree.walk() for f in sorted(folder.path.glob("*.*")) if f.suffix.lower() in ARCHIVES]
    if archives:
        return f", and {count(len(archives), 'archive')} such as {archives[0].name}: {_unpack(archives)}"
    if any((folder.path / "cars_annos.mat").is_file() for folder in tree.walk()):
        return (
            ", and cars_annos.mat, which numbers the pictures of car_ims/ (000001.jpg), not those of cars_train/: "
            "add cars_train_annos.mat of the devkit"
        )
    return ""


def _unpack(archives: list[Path]) -> str:
    """What to do with archives: unpack them, or convert the shards of webdataset."""
    file = archives[0]
    try:
        with tarfile.open(file) as archive:
            members = [Path(member.name) for member, _ in zip(archive, range(4), strict=False)]
    except (tarfile.TarError, OSError, EOFError, zlib.error):
        members = []
    if any(member.suffix in (".cls", ".json", ".txt") and not member.stem.startswith(".") for member in members):
        return (
            f"{file.name} is a shard of webdataset; convert the shards with `datasets`, "
            'load_dataset("webdataset", data_files=...), to a parquet file with the columns image and label'
        )
    return "unpack archives first"


# Annotations: the devkit's .mat files and Kaggle's .csv files --------------------------------------------------------


def _find(name: str, folders: Iterable[Path]) -> Path | None:
    """Find a file in the first folder that has it, also under a name that a browser gave to a second download."""
    stem, suffix = os.path.splitext(name)
    again = re.compile(re.escape(stem) + r"[ _-]*(\(\d+\)|copy)?" + re.escape(suffix), re.IGNORECASE)
    found = [file for file in _files(folders, f"{stem}*{suffix}") if again.fullmatch(file.name) and file.is_file()]
    return next((file for file in found if file.name == name), found[0] if found else None)


def _annotations(source: Path, folders: list[Path]) -> tuple[pd.DataFrame, list[str] | None]:
    """Read the annotations that are found.

    Returns:
        A table of split, file, class_id, box and where (`class_id` counts from 1, as in the files; NaN in test
        annotations without labels); the class names in label order, if there are any.
    """
    parts: list[pd.DataFrame] = []
    names: list[str] | None = None
    if meta := _find("cars_meta.mat", folders):
        names = [str(name).strip() for name in _as_list(_loadmat(meta).get("class_names"))]
    for split, files in (
        ("train", ["cars_train_annos.mat"]),
        ("test", ["cars_test_annos_withlabels.mat", "cars_test_annos.mat"]),
    ):
        if path := next((p for name in files if (p := _find(name, folders))), None):
            rows = pd.DataFrame(_as_list(_loadmat(path).get("annotations")))
            parts.append(_clean(rows.rename(columns=MAT_COLUMNS), split, path))
    if not parts:
        # Kaggle's tables may also be above the pictures' folder; above a folder of crops, they are the originals'.
        above = [] if (source / CROP_FILE).is_file() else list(source.parents)[:2]
        candidates = [*folders, *above]
        if path := _find("names.csv", candidates):
            names = [line.strip().strip('"') for line in _read_text(path).splitlines() if line.strip()]
        for split in ("train", "test"):
            if path := _find(f"anno_{split}.csv", candidates):
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


def _official(
    folders: list[Folder], annotations: pd.DataFrame, names: list[str] | None, reasons: dict[Path, str]
) -> Listing | None:
    """The official layout, or None if it does not fit. Adds to `reasons` why pictures of a folder are not used."""
    images: dict[str, Folder] = {}
    for folder in folders:  # the first of each split counts
        if folder.path.name in ("cars_train", "cars_test") and folder.pictures:
            images.setdefault(SPLIT_NAMES[folder.path.name], folder)
    annotated = annotations[annotations["where"].str.contains(".mat", regex=False)]
    if "train" not in images or not (annotated["split"] == "train").any():
        return None
    names, rows, notes = names or list(STANFORD_CARS), [], []
    for folder in images.values():
        reasons[folder.path] = "without annotation"
    for split, listed in annotated.groupby("split", sort=False):
        if split not in images:
            notes.append(f"There are no pictures in cars_{split}/: {count(len(listed), 'annotated picture')} left out.")
        elif split == "test" and listed["class_id"].isna().all():
            reasons[images["test"].path] = (
                "without label; with cars_test_annos_withlabels.mat next to the devkit they become the test split"
            )
        else:
            rows += _annotated_rows(images[split].path, listed, names)
    return Listing("official devkit", pd.DataFrame(rows, columns=COLUMNS), names, notes)


def _car_ims(folders: list[Folder], reasons: dict[Path, str]) -> Listing | None:
    """The official layout of one folder, car_ims/, with one file of annotations, or None if it does not fit."""
    images = next((folder for folder in folders if folder.path.name == "car_ims" and folder.pictures), None)
    path = _find("cars_annos.mat", [folder.path for folder in folders])
    if images is None or path is None:
        return None
    content = _loadmat(path)
    table = pd.DataFrame(_as_list(content.get("annotations")))
    is_test = pd.to_numeric(table["test"], errors="coerce") > 0 if "test" in table else pd.Series(False, table.index)
    listed = _clean(table.rename(columns=MAT_COLUMNS), "train", path)
    listed.loc[is_test.reindex(listed.index, fill_value=False), "split"] = "test"
    names = [str(name).strip() for name in _as_list(content.get("class_names"))] or list(STANFORD_CARS)
    rows = [row for _, part in listed.groupby("split") for row in _annotated_rows(images.path, part, names)]
    reasons[images.path] = "without annotation"
    return Listing("car_ims with cars_annos.mat", pd.DataFrame(rows, columns=COLUMNS), names)


def _annotated_rows(folder: Path, annotations: pd.DataFrame, names: list[str]) -> list[tuple[Any, ...]]:
    rows = []
    for row in annotations.itertuples():
        class_name, reason = lookup_class(row.class_id, names, row.where)
        rows.append((folder / row.file, row.split, class_name, row.x1, row.y1, row.x2, row.y2, row.where, reason))
    return rows


def _by_class(classes: list[ClassFolder], annotations: pd.DataFrame, names: list[str] | None) -> Listing:
    """Class folders, with annotation tables if they are about these classes."""
    notes = []
    class_names = {canonical_class_name(each.name) for each in classes}
    splits = {each.split for each in classes}
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
    labeled = annotations["split"].isin(splits) & annotations["class_id"].notna()
    for row in annotations[labeled].itertuples():
        class_name, reason = lookup_class(row.class_id, ids, row.where)
        boxes[row.split, canonical_class_name(class_name), row.file] = (row, class_name, reason)
        elsewhere[row.split, row.file] = (row.split, canonical_class_name(class_name), row.file)
    places: dict[tuple[str, str], Path] = {}
    for each in classes:
        split, key = each.split, canonical_class_name(each.name)
        places.setdefault((split, key), each.folder.path)
        places.setdefault((split, ""), each.folder.path.parent)
        for file in each.folder.pictures:
            row, _, reason = boxes.pop((split, key, file), (None, "", ""))
            if row is None and (other := elsewhere.get((split, file))) in boxes:
                row, _, reason = boxes.pop(other)
                if not reason:  # the classes differ: the box is another picture's
                    row, mismatched = None, mismatched + 1
            box = [getattr(row, c) for c in BOX] if row else [float("nan")] * 4
            rows.append((each.folder.path / file, split, each.name, *box, row.where if row else "", reason))
    for row, class_name, reason in boxes.values():
        folder = places.get((row.split, canonical_class_name(class_name)))
        path = (folder or places[row.split, ""] / folder_name(class_name)) / row.file
        rows.append((path, row.split, class_name, row.x1, row.y1, row.x2, row.y2, row.where, reason))
    if mismatched:
        notes.append(
            f"{count(mismatched, 'box', 'boxes')} not used: the annotation names another class than the folder."
        )
    # Sorted by file name, official pictures are in the devkit's order, which gives the same validation split.
    rows.sort(key=lambda r: (r[0].name, r[2]))
    layout = "folders by class" + (" with annotation tables" if len(annotations) else "")
    return Listing(layout, pd.DataFrame(rows, columns=COLUMNS), names, notes)
