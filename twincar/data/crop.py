"""Cuts cars out by their boxes, into picture files that anything can read.

    twincar crop --root-dir SOURCE --output-dir cropped_images     # --margin 16 --size 224 --show-classes 20

SOURCE is a folder with boxes that `twincar prepare` reads, or one that it wrote. The cars go to
`cropped_images/<split>/<class>/<file>`, which is a source for `twincar prepare` again; beside them lie `rejected.csv`,
`samples.jpg` and `crop.json`, the options they were cut with. From Python: `crop("SOURCE", "cropped_images")`.

A box counts in the pixels as they are stored, whatever EXIF says of the camera's stand: annotators saw them so, and so
training cuts (`features.cached_pictures`). The cut car is then turned upright and saved without EXIF, so that every
program shows it as `photo.load_photo` would. Of a picture without such a tag the pixels are those training cuts.
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

import numpy as np
import pandas as pd
from PIL import Image, ImageOps
from rich.progress import track

from twincar.config import BOX_MARGIN, IMAGE_SUFFIXES, canonical_class_name
from twincar.data.layouts import read_source
from twincar.data.listing import BOX, CROP_FILE, DataError, folder_name
from twincar.data.table import SPLITS, label_rows, load_table
from twincar.data.validation import clip_box, read_sound
from twincar.features.photo import crop_box
from twincar.features.transforms import squash
from twincar.files import atomic_write, write_csv, write_json
from twincar.text import count

KEPT = IMAGE_SUFFIXES - {".gif", ".heic"}  # suffixes of crops: GIF has 256 colours, and HEIC cannot be written
QUALITY = 95  # of JPEG and WebP: a second loss nobody sees
TILE = (320, 280)  # pixels, width and height, of a car and its caption on the sheet


@dataclass(frozen=True)
class Summary:
    """What `crop` found and did; `describe()` says it in sentences."""

    folder: Path
    layout: str
    cut: int
    kept: int  # cut by an earlier run
    rejected: dict[str, int]  # pictures a reason (its first words)
    classes: pd.DataFrame  # cars in the folder: class names, the most frequent first, by splits
    sheet: Path | None
    notes: tuple[str, ...] = ()

    def describe(self) -> str:
        """A few sentences for a person, one a line."""
        there = f" {count(self.kept, 'car')} lay there already." if self.kept else ""
        lines = [
            f"Layout: {self.layout}; {count(len(self.classes), 'class', 'classes')}.",
            f"Cut {count(self.cut, 'car')} into {self.folder}.{there}",
        ]
        if rejected := sum(self.rejected.values()):
            reasons = ", ".join(f"{n:,} {reason}" for reason, n in self.rejected.items())
            lines.append(f"{count(rejected, 'picture')} rejected ({reasons}): see {self.folder / 'rejected.csv'}.")
        if self.sheet:
            lines.append(f"One sample a class: {self.sheet}.")
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
    """Cut every car of `root_dir` out of its picture and write it below `output_dir`; no original is ever written to.

    Parameters
    ----------
    root_dir : a folder in any layout of `layouts.py` that has boxes, or a folder that `prepare` wrote.
    output_dir : a new folder, or one of an earlier run: cars that lie there are kept, what is missing is cut.
    margin : pixels of context around the box, in the original picture.
    size : squash the car to a square of this side in pixels, as training does; None keeps it as it is.
    samples : how many classes the sheet `samples.jpg` shows, the most frequent first; 0 writes none.
    overwrite : cut all again, also with other options than the earlier run's.
    progress : show a progress bar.

    Raises
    ------
    DataError
        One sentence: no layout fits, there are no boxes, no car could be cut, or `output_dir` is not to be written.
    """
    root, output = (Path(os.path.abspath(Path(folder).expanduser())) for folder in (root_dir, output_dir))
    layout, rows, notes = _read(root)
    _keep_apart(root, output, rows)
    rows["target"] = _targets(rows, output)
    there = _already_there(rows)
    _claim(output, {"source": str(root), "margin": margin, "size": size}, rows["target"][there], overwrite)
    todo = rows[(rows["reason"] == "") & ~(there & (not overwrite))]
    rows.loc[todo.index, "reason"] = _cut_all(todo, margin, size, progress)

    good, rejected = rows[rows["reason"] == ""], rows[rows["reason"] != ""]
    reasons = Counter(reason.split(":")[0] for reason in rejected["reason"])
    write_csv(rejected[["path", "reason"]], output / "rejected.csv")
    if good.empty:
        found = ", ".join(f"{n:,} {reason}" for reason, n in reasons.most_common()) or "none was listed"
        raise DataError(f"No car in {root_dir} could be cut ({found}): see {output / 'rejected.csv'} for the reasons.")
    classes = pd.crosstab(good["class_name"], good["split"])
    classes = classes[[split for split in SPLITS if split in classes]]
    classes = classes.loc[classes.sum(axis=1).sort_values(ascending=False, kind="stable").index]
    sheet = output / "samples.jpg" if samples else None
    if sheet:
        _draw_sheet(good, classes.sum(axis=1).head(samples), sheet)
    cut = int((rows.loc[todo.index, "reason"] == "").sum())
    return Summary(output, layout, cut, len(good) - cut, dict(reasons.most_common()), classes, sheet, tuple(notes))


# What is cut, and where it goes --------------------------------------------------------------------------------------


def _read(root: Path) -> tuple[str, pd.DataFrame, list[str]]:
    """The source's layout, its rows (listing.COLUMNS, reasons filled in where no car can be cut) and notes."""
    if not root.is_dir():
        raise DataError(f"There is no folder {root}: give one that holds pictures of cars and their boxes.")
    if (root / "cars.csv").is_file():
        rows = load_table(root)
        rows["path"] = rows["path"].map(Path)
        rows = rows.assign(where=[f"cars.csv row {i}" for i in range(1, len(rows) + 1)], reason="")
        layout, notes = "prepared table", []
    else:
        listing = read_source(root, pictures=None)
        layout, rows, notes = listing.layout, listing.rows.reset_index(drop=True), listing.notes
        rows["class_name"], _, _ = label_rows(listing, rows["class_name"])
    boxless = rows[BOX].isna().all(axis=1)
    if boxless.all():
        raise DataError(
            f"There are no boxes in {root} to cut by: give the folder that also holds devkit/cars_train_annos.mat or "
            "Kaggle's anno_train.csv."
        )
    rows.loc[boxless & (rows["reason"] == ""), "reason"] = "no box"
    return layout, rows, notes


def _keep_apart(root: Path, output: Path, rows: pd.DataFrame) -> None:
    """Raise DataError where crops would lie among the originals, by any name or link that leads there."""
    by_class = [
        path.parent.name == canonical_class_name(name)
        for path, name in zip(rows["path"], rows["class_name"], strict=True)
    ]
    folders = {p.parent.parent if nested else p.parent for p, nested in zip(rows["path"], by_class, strict=True)}
    real = Path(os.path.realpath(output))
    for folder in (root, *sorted(folders)):
        pictures = Path(os.path.realpath(folder))
        if pictures.is_relative_to(real) or (folder in folders and real.is_relative_to(pictures)):
            raise DataError(
                f"The crops would lie among the original pictures in {folder}: choose another --output-dir."
            )


def _targets(rows: pd.DataFrame, output: Path) -> list[Path]:
    """Where each car goes. No two go to one file, also where the disk takes "A.jpg" and "a.jpg" for the same."""
    targets, taken = [], set()
    for split, class_name, path in rows[["split", "class_name", "path"]].itertuples(index=False):
        suffix = path.suffix if path.suffix.lower() in KEPT else path.suffix + ".jpg"
        folder, name, number = output / split / folder_name(class_name), path.stem + suffix, 2
        while (key := str(folder / name).casefold()) in taken:
            name, number = f"{path.stem}-{number}{suffix}", number + 1
        taken.add(key)
        targets.append(folder / name)
    return targets


def _already_there(rows: pd.DataFrame) -> np.ndarray:
    """Which cars lie in the folder: files appear whole or not at all. Raises DataError where one is an original, as it
    is through a linked folder: the file's number on the disk tells, whatever its path."""

    def number(path: Path) -> tuple[int, int] | None:
        try:
            found = path.stat()
        except OSError:
            return None
        return (found.st_dev, found.st_ino) if found.st_size else None

    originals = {number(path) for path in rows["path"]} - {None}
    targets = [number(path) for path in rows["target"]]
    for target, found in zip(rows["target"], targets, strict=True):
        if found in originals:
            raise DataError(f"{target} is an original picture and is not overwritten: choose another --output-dir.")
    return np.array([found is not None for found in targets], dtype=bool)


def _claim(output: Path, options: dict, there: pd.Series, overwrite: bool) -> None:
    """Note the options in the folder; raise DataError where it belongs to something else or was cut otherwise.

    To overwrite, what was cut is deleted before the new options are noted. So whenever a run is killed, the cars in
    the folder are those of the options noted there.
    """
    notes = output / CROP_FILE
    try:
        if notes.is_file():
            before = json.loads(notes.read_text("utf-8"))
            if before["source"] != options["source"]:
                raise DataError(f"{output} holds the cars of {before['source']}: choose another --output-dir.")
            if before != options and not overwrite:
                size = f"size {before['size']}" if before["size"] else "no size"
                raise DataError(
                    f"The cars in {output} were cut with margin {before['margin']} and {size}: give the same, choose "
                    "another --output-dir, or cut them again with --overwrite."
                )
        elif output.is_dir() and any(not p.name.startswith(".") for p in output.iterdir()):
            raise DataError(f"{output} holds files that `twincar crop` did not write: choose a new --output-dir.")
        if overwrite:
            for path in there:
                path.unlink()
        write_json(options, notes)
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise DataError(f"{notes} is not what `twincar crop` wrote: choose a new --output-dir.") from error
    except OSError as error:
        raise DataError(f"{output} cannot be written ({error.strerror}): choose another --output-dir.") from error


# Cutting -------------------------------------------------------------------------------------------------------------


def _cut_all(rows: pd.DataFrame, margin: int, size: int | None, progress: bool) -> list[str]:
    """Write the cars; "" or why there is none, a row. In threads: PIL lets go of Python's lock to decode and encode."""
    records = list(rows.to_dict("records"))
    pool = ThreadPoolExecutor(os.cpu_count())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PIL warns of huge pictures and odd EXIF; here they are rejected or fine
        try:
            found = pool.map(partial(_cut, margin=margin, size=size), records)
            return list(track(found, "Cutting", total=len(records), disable=not (progress and records)))
        finally:
            pool.shutdown(cancel_futures=True)  # Ctrl-C and a full disk end the run, not the queue


def _cut(row: dict, margin: int, size: int | None) -> str:
    def read(image: Image.Image) -> Image.Image | str:
        where = f"{row['path'].name}, {row['where']}"
        box = clip_box([row[c] for c in BOX], *image.size, where)
        if isinstance(box, str):
            return box
        profile = image.info.get("icc_profile") if image.mode == "RGB" else None
        car = _upright(crop_box(image.convert("RGB"), [round(value) for value in box], margin))
        car = Image.fromarray(squash(car, size)) if size else car
        car.info = {"icc_profile": profile}
        return car

    car = read_sound(row["path"], read)
    if isinstance(car, str):
        return car
    try:
        with atomic_write(row["target"]) as beside:
            car.save(beside, quality=QUALITY, icc_profile=car.info["icc_profile"])
    except OSError as error:
        raise DataError(f"{row['target']} cannot be written ({error}): make room and start again.") from error
    return ""


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # broken EXIF, of which PIL raises anything, says nothing about how the camera stood
        return image


# The sheet -----------------------------------------------------------------------------------------------------------


def _draw_sheet(cars: pd.DataFrame, counts: pd.Series, path: Path) -> None:
    """One car of each class in `counts` (class name -> cars), five a row, each on a tile of 320 by 280 pixels."""
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
        style = {"transform": axes.transAxes, "va": "top", "size": 10, "linespacing": 1.15, "parse_math": False}
        axes.text(0, -0.03, "\n".join(caption), **style)
        axes.text(0, -0.03 - 0.085 * len(caption), count(int(n), "car"), color="#868e96", **style)
    with atomic_write(path) as beside:
        figure.savefig(beside, pil_kwargs={"quality": QUALITY})


def _readable(paths: pd.Series) -> Iterator[Image.Image]:
    for path in paths:
        try:
            with Image.open(path) as image:
                yield image.convert("RGB")
        except OSError:  # somebody touched it
            continue
