"""Crop cars to their boxes, as image files.

    twincar crop --root-dir SOURCE --output-dir cropped_images     # --margin 16 --size 224 --show-classes 20

SOURCE is a folder with boxes that `twincar prepare` reads, or one that it wrote. The crops go to
`cropped_images/<split>/<class>/<file>`, which is again a source for `twincar prepare`, next to `rejected.csv`,
`samples.jpg` and `crop.json` (the options). From Python: `crop("SOURCE", "cropped_images")`.

Boxes refer to the stored pixels, before the EXIF orientation is applied, as annotations do and as in training
(`features.cache`). The crop is then turned upright and saved without EXIF, so that every program shows it as
`load_photo` does. For pictures without an EXIF orientation, the pixels equal those of the training crops.
"""

import json
import os
import textwrap
import warnings
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from rich.progress import track

from twincar.config import BOX_MARGIN, FORMATS, canonical_class_name
from twincar.data.layouts import read_source
from twincar.data.listing import BOX, CROP_FILE, DataError, describe_unused, folder_name
from twincar.data.table import SPLITS, label_rows, load_table
from twincar.data.validation import clip_box, read_valid
from twincar.features.photo import crop_box, to_rgb
from twincar.features.transforms import squash
from twincar.files import atomic_write, write_csv, write_json
from twincar.text import count

OUTPUT_SUFFIXES = {s for kind in ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP") for s in FORMATS[kind]} - {".mpo"}
QUALITY = 95  # of JPEG and WebP; without visible loss
TILE = (320, 280)  # width and height of a crop and its caption on the contact sheet, in pixels


@dataclass(frozen=True)
class Summary:
    """Result of `crop`.

    Attributes:
        folder: The output folder.
        layout: Name of the source's layout.
        written: Number of crops written by this run.
        kept: Number of crops written by an earlier run.
        rejected: Rejected pictures by reason (its first words).
        classes: Crops by class name (most frequent first) and split.
        sheet: Path of the contact sheet, if one was written.
        notes: Sentences about what was left out.
    """

    folder: Path
    layout: str
    written: int
    kept: int
    rejected: dict[str, int]
    classes: pd.DataFrame
    sheet: Path | None
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """Summarize in a few sentences, one per line."""
        kept = f" {count(self.kept, 'crop')} kept from an earlier run." if self.kept else ""
        lines = [
            f"Layout: {self.layout}; {count(len(self.classes), 'class', 'classes')}.",
            f"Wrote {count(self.written, 'crop')} to {self.folder}.{kept}",
        ]
        if rejected := sum(self.rejected.values()):
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.rejected.items())
            lines.append(f"{count(rejected, 'picture')} rejected ({reasons}): see {self.folder / 'rejected.csv'}.")
        if self.sheet:
            lines.append(f"One sample per class: {self.sheet}.")
        return "\n".join([*lines, *self.notes])


def crop(
    root_dir: str | Path,
    output_dir: str | Path = "cropped_images",
    *,
    margin: int = BOX_MARGIN,
    size: int | None = None,
    samples: int = 20,
    overwrite: bool = False,
    progress: bool = True,
) -> Summary:
    """Crop every car of `root_dir` to its box, into `output_dir`; the original files are never written to.

    Args:
        root_dir: A folder in any layout of `layouts.py` that has boxes, or a folder that `prepare` wrote.
        output_dir: A new folder, or that of an earlier run: existing crops are kept, missing ones are written.
        margin: Pixels of context around the box, in the original picture.
        size: Side of a square to squash the crop to, in pixels, as in training; None keeps the crop's size.
        samples: Number of classes on the contact sheet `samples.jpg`, most frequent first; 0 writes none.
        overwrite: Write all crops again, possibly with other options than the earlier run's.
        progress: Whether to show a progress bar.

    Raises:
        DataError: No layout fits, there are no boxes, no car can be cropped, or `output_dir` cannot be used.
    """
    root, output = (Path(os.path.abspath(Path(folder).expanduser())) for folder in (root_dir, output_dir))
    layout, rows, notes = _read(root)
    _check_output(root, output, rows)
    rows["target"] = _targets(rows, output)
    exists = _existing(rows)
    _write_options(output, {"source": str(root), "margin": margin, "size": size}, rows["target"][exists], overwrite)
    todo = rows[(rows["reason"] == "") & ~(exists & (not overwrite))]
    rows.loc[todo.index, "reason"] = _crop_all(todo, margin, size, progress)

    good, rejected = rows[rows["reason"] == ""], rows[rows["reason"] != ""]
    reasons = Counter(reason.split(":")[0] for reason in rejected["reason"])
    write_csv(rejected[["path", "reason"]], output / "rejected.csv")
    if good.empty:
        found = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common()) or "none was listed"
        raise DataError(
            f"No car in {root_dir} could be cropped ({found}): see {output / 'rejected.csv'} for the reasons."
        )
    classes = pd.crosstab(good["class_name"], good["split"])
    classes = classes[[split for split in SPLITS if split in classes]]
    classes = classes.loc[classes.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    sheet = output / "samples.jpg" if samples else None
    if sheet:
        _draw_sheet(good, classes.sum(axis=1).head(samples), sheet)
    written = int((rows.loc[todo.index, "reason"] == "").sum())
    return Summary(
        output, layout, written, len(good) - written, dict(reasons.most_common()), classes, sheet, tuple(notes)
    )


# Source and output folder --------------------------------------------------------------------------------------------


def _read(root: Path) -> tuple[str, pd.DataFrame, list[str]]:
    """The source's layout, rows (listing.COLUMNS, with the reasons of those without a box) and notes."""
    if not root.is_dir():
        raise DataError(f"There is no folder {root}: give a folder with pictures of cars and their boxes.")
    if (root / "cars.csv").is_file():
        rows = load_table(root)
        rows["path"] = rows["path"].map(Path)
        rows = rows.assign(where=[f"cars.csv row {i}" for i in range(1, len(rows) + 1)], reason="")
        layout, notes = "prepared table", []
    else:
        listing = read_source(root, pictures=None)
        layout, rows = listing.layout, listing.rows.reset_index(drop=True)
        notes = [*describe_unused(listing.unused), *listing.notes]
        rows["class_name"], _, _ = label_rows(listing, rows["class_name"])
    boxless = rows[BOX].isna().all(axis=1)
    if boxless.all():
        raise DataError(
            f"There are no boxes in {root}: give the folder that also holds devkit/cars_train_annos.mat or "
            "Kaggle's anno_train.csv."
        )
    rows.loc[boxless & (rows["reason"] == ""), "reason"] = "no box"
    return layout, rows, notes


def _check_output(root: Path, output: Path, rows: pd.DataFrame) -> None:
    """Raise DataError if the crops would be written among the originals, also through links."""
    by_class = [
        canonical_class_name(path.parent.name) == canonical_class_name(name)
        for path, name in zip(rows["path"], rows["class_name"], strict=True)
    ]
    folders = {p.parent.parent if nested else p.parent for p, nested in zip(rows["path"], by_class, strict=True)}
    real = Path(os.path.realpath(output))
    for folder in (root, *sorted(folders)):
        pictures = Path(os.path.realpath(folder))
        if pictures.is_relative_to(real) or (folder in folders and real.is_relative_to(pictures)):
            raise DataError(
                f"The crops would be written among the original pictures in {folder}: choose another --output-dir."
            )


def _targets(rows: pd.DataFrame, output: Path) -> list[Path]:
    """Path of each crop; all different, also on a case-insensitive file system."""
    targets: list[Path] = []
    taken = set()
    for split, class_name, path in rows[["split", "class_name", "path"]].itertuples(index=False):
        suffix = path.suffix if path.suffix.lower() in OUTPUT_SUFFIXES else path.suffix + ".jpg"
        folder, name, number = output / split / folder_name(class_name), path.stem + suffix, 2
        while (key := str(folder / name).casefold()) in taken:
            name, number = f"{path.stem}-{number}{suffix}", number + 1
        taken.add(key)
        targets.append(folder / name)
    return targets


def _existing(rows: pd.DataFrame) -> np.ndarray:
    """Which crops exist already (files are written atomically).

    Raises DataError if one is an original picture, which is possible through a linked folder: files are compared by
    device and inode, not by path.
    """

    def inode(path: Path) -> tuple[int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found.st_size else None

    originals = {inode(path) for path in rows["path"]} - {None}
    targets = [inode(path) for path in rows["target"]]
    for target, found in zip(rows["target"], targets, strict=True):
        if found in originals:
            raise DataError(f"{target} is an original picture and is not overwritten: choose another --output-dir.")
    return np.array([found is not None for found in targets], dtype=bool)


def _write_options(output: Path, options: dict, existing: pd.Series, overwrite: bool) -> None:
    """Write the options to the folder; raises DataError if its files are not crops or were made with other options.

    To overwrite, existing crops are deleted before the new options are written. So, whenever a run is killed, the crops
    in the folder were made with the options that are written there.
    """
    file = output / CROP_FILE
    try:
        if file.is_file():
            before = json.loads(file.read_text("utf-8"))
            if before["source"] != options["source"]:
                raise DataError(f"{output} holds the crops of {before['source']}: choose another --output-dir.")
            if before != options and not overwrite:
                size = f"size {before['size']}" if before["size"] else "no size"
                raise DataError(
                    f"The crops in {output} were made with margin {before['margin']} and {size}: use the same "
                    "options, choose another --output-dir, or make them again with --overwrite."
                )
        elif output.is_dir() and any(not p.name.startswith(".") for p in output.iterdir()):
            raise DataError(f"{output} holds files that `twincar crop` did not write: choose a new --output-dir.")
        if overwrite:
            for path in existing:
                path.unlink()
        write_json(options, file)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{file} was not written by `twincar crop`: choose a new --output-dir.") from error
    except OSError as error:
        raise DataError(f"{output} cannot be written ({error.strerror}): choose another --output-dir.") from error


# Cropping ------------------------------------------------------------------------------------------------------------


def _crop_all(rows: pd.DataFrame, margin: int, size: int | None, progress: bool) -> list[str]:
    """Write the crops; returns "" or the reason of each row. In threads: PIL decodes and encodes without the GIL."""
    records = list(rows.to_dict("records"))
    pool = ThreadPoolExecutor(os.cpu_count())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL's about huge pictures (rejected below) and odd EXIF (harmless)
        try:
            found = pool.map(partial(_crop_one, margin=margin, size=size), records)
            return list(track(found, "Cropping", total=len(records), disable=not (progress and records)))
        finally:
            pool.shutdown(cancel_futures=True)  # on Ctrl-C or a full disk, do not finish the queue first


def _crop_one(row: dict, margin: int, size: int | None) -> str:
    """Write one crop; returns "" or the reason why it cannot be made."""

    def read(image: Image.Image) -> Image.Image | str:
        where = f"{row['path'].name}, {row['where']}"
        box = clip_box([row[c] for c in BOX], *image.size, where)
        if isinstance(box, str):
            return box
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
        car = _upright(crop_box(to_rgb(image), [round(value) for value in box], margin))
        car = Image.fromarray(squash(car, size)) if size else car
        car.info = {"icc_profile": profile}
        return car

    car = read_valid(row["path"], read)
    if isinstance(car, str):
        return car
    try:
        with atomic_write(row["target"]) as temporary:
            car.save(temporary, quality=QUALITY, icc_profile=car.info["icc_profile"])
    except OSError as error:
        raise DataError(f"{row['target']} cannot be written ({error}): free some space and start again.") from error
    return ""


def _upright(image: Image.Image) -> Image.Image:
    """Apply the EXIF orientation, if it can be read."""
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # on broken EXIF, PIL raises exceptions of any kind
        return image


# Contact sheet -------------------------------------------------------------------------------------------------------


def _draw_sheet(cars: pd.DataFrame, counts: pd.Series, path: Path) -> None:
    """Draw one crop of each class in `counts` (class name -> number of crops), five per row, on tiles of size TILE."""
    from matplotlib.figure import Figure

    columns = min(5, len(counts))
    lines = -(-len(counts) // columns)
    figure = Figure((columns * TILE[0] / 100, lines * TILE[1] / 100), dpi=100)
    for i, (name, n) in enumerate(counts.items()):
        left, top = i % columns, lines - i // columns
        axes = figure.add_axes(((left + 0.03) / columns, (top - 0.75) / lines, 0.94 / columns, 0.72 / lines))
        axes.set_axis_off()
        if car := next(_readable(cars.loc[cars["class_name"] == name, "target"]), None):
            axes.imshow(ImageOps.pad(car, (602, 403), color="#f1f3f5"), aspect="auto")
        caption = textwrap.wrap(name, 36, max_lines=2, placeholder=" …")
        style: dict[str, Any] = {"transform": axes.transAxes, "va": "top", "size": 10, "linespacing": 1.15}
        axes.text(0, -0.03, "\n".join(caption), parse_math=False, **style)
        axes.text(0, -0.03 - 0.085 * len(caption), count(int(n), "car"), color="#868e96", **style)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, pil_kwargs={"quality": QUALITY})


def _readable(paths: pd.Series) -> Iterator[Image.Image]:
    """Open the images that can be read."""
    for path in paths:
        try:
            with Image.open(path) as image:
                yield image.convert("RGB")
        except OSError:  # changed since it was written
            continue
