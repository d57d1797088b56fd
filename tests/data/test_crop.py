"""`twincar crop`: the crops, their paths, resuming, and that originals are never changed."""

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from tests.cli.test_cli import twincar
from tests.conftest import HUMMER, RAM, SMART, THREE, annotations, by_class, kaggle, official, picture_bytes, put
from twincar.config import STANFORD_CARS
from twincar.data.crop import crop
from twincar.data.table import COLUMNS, load_table, prepare
from twincar.features.transforms import squash

RAM_FOLDER = "Ram C-V Cargo Van Minivan 2012"


def cut(source, out, *options):
    done = twincar("crop", "--root-dir", source, "--output-dir", out, *options)
    assert done.exit_code == 0, done.output
    return done.stdout


def error_of(*words) -> str:
    done = twincar("crop", *words)
    assert done.exit_code == 2, done.output
    assert done.stderr.startswith("twincar: ") and done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def cars(out: Path) -> dict[str, bytes]:
    """File below `out` -> content, of the crops only."""
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.glob("*/*/*")) if p.is_file()}


def rejected(out: Path) -> dict[str, str]:
    rows = pd.read_csv(out / "rejected.csv")
    return {Path(path).name: reason for path, reason in zip(rows["path"], rows["reason"], strict=True)}


def prepared(folder: Path, pictures: list[tuple[Path, tuple]], class_name="kit", split="train") -> Path:
    """A folder as `prepare` writes it, with one class."""
    rows = pd.DataFrame([dict(zip(("x1", "y1", "x2", "y2"), box, strict=True)) | {"path": p} for p, box in pictures])
    rows = rows.assign(label=0, class_name=class_name, make="kit", split=split)
    folder.mkdir(parents=True, exist_ok=True)
    rows.reindex(columns=COLUMNS).to_csv(folder / "cars.csv", index=False)
    return folder


# Crops ---------------------------------------------------------------------------------------------------------------


def test_official_layout_is_cropped_to_the_pixel(tmp_path):
    root = official(tmp_path / "cars", n=6)
    output = cut(root, tmp_path / "out", "--margin", 4)
    assert set(cars(tmp_path / "out")) == {
        f"train/{(HUMMER, RAM_FOLDER, SMART)[i % 3]}/{i + 1:05d}.jpg" for i in range(6)
    }
    # the devkit's box 2,3,50,30 is 1-based and inclusive; the margin of 4 pixels is cut off at the left edge
    with Image.open(root / "cars_train/00002.jpg") as image:
        image.crop((0, 0, 54, 34)).save(tmp_path / "expected.jpg", quality=95)
    with (
        Image.open(tmp_path / "out/train" / RAM_FOLDER / "00002.jpg") as car,
        Image.open(tmp_path / "expected.jpg") as expected,
    ):
        assert car.format == "JPEG" and (np.asarray(car) == np.asarray(expected)).all()
    assert "Wrote 6 crops" in output and "official devkit; 3 classes" in output and rejected(tmp_path / "out") == {}
    assert RAM in output  # the class name, not the folder name


def test_kaggle_layout_without_margin_and_both_splits(tmp_path):
    root = kaggle(tmp_path / "archive", "car_data/car_data")
    output = cut(root, tmp_path / "out", "--margin", 0)
    assert len(cars(tmp_path / "out")) == 33 and len(list((tmp_path / "out/test").iterdir())) == 3
    for number, name in ((4, HUMMER), (29, RAM_FOLDER)):  # the box of row i starts at column i
        with Image.open(tmp_path / f"out/train/{name}/{number:05d}.jpg") as car:
            assert car.size == (50 - (number - 1), 28)
    head = next(line for line in output.splitlines() if "class" in line).split()
    assert head == ["class", "cars", "train", "test"]
    assert next(line for line in output.splitlines() if HUMMER in line).split()[-3:] == ["11", "10", "1"]
    assert next(line for line in output.splitlines() if "3 classes" in line).split()[-3:] == ["33", "30", "3"]
    assert " more" not in output


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.tuples(*[st.integers(0, 59)] * 2, *[st.integers(0, 39)] * 2), min_size=1, max_size=6),
    st.integers(0, 70),
)
def test_png_pixels_equal_the_originals(tmp_path_factory, corners, margin):
    folder = tmp_path_factory.mktemp("png")
    boxes = [(min(a, b), min(c, d), max(a, b) + 1, max(c, d) + 1) for a, b, c, d in corners]
    pictures = [put(folder / f"in/{i}.png", picture_bytes(kind="PNG", seed=i)) for i in range(len(boxes))]
    source = prepared(folder / "data", list(zip(pictures, boxes, strict=True)))
    assert crop(source, folder / "out", margin=margin, samples=0, progress=False).written == len(boxes)
    for path, (x1, y1, x2, y2) in zip(pictures, boxes, strict=True):
        with Image.open(path) as image, Image.open(folder / "out/train/kit" / path.name) as car:
            whole = np.asarray(image)
            assert car.format == "PNG"
            assert (
                np.asarray(car) == whole[max(y1 - margin, 0) : y2 + margin, max(x1 - margin, 0) : x2 + margin]
            ).all()


def test_size_squashes_as_in_training(tmp_path):
    picture = put(tmp_path / "in/a.png", picture_bytes((90, 70), "PNG"))
    cut(prepared(tmp_path / "data", [(picture, (20, 20, 60, 50))]), tmp_path / "out", "--size", 32)
    with Image.open(picture) as image, Image.open(tmp_path / "out/train/kit/a.png") as car:
        assert (np.asarray(car) == squash(image.crop((4, 4, 76, 66)), 32)).all()


def test_a_rotated_picture_is_cropped_as_stored_and_turned_upright(tmp_path):
    stored = Image.open(put(tmp_path / "in/plain.png", picture_bytes((80, 60), "PNG")))
    exif = Image.Exif()
    exif[0x0112] = 6  # EXIF: rotate 90 degrees clockwise
    stored.save(tmp_path / "in/rotated.png", exif=exif)
    cut(prepared(tmp_path / "data", [(tmp_path / "in/rotated.png", (10, 20, 50, 40))]), tmp_path / "out", "--margin", 0)
    with Image.open(tmp_path / "out/train/kit/rotated.png") as car:
        assert not car.getexif()
        assert (np.asarray(car) == np.rot90(np.asarray(stored)[20:40, 10:50], -1)).all()


def test_files_of_the_same_name_do_not_collide(tmp_path):
    pictures = [put(tmp_path / f"{i}/{name}", picture_bytes(kind="PNG", seed=i))
                for i, name in enumerate(("a.png", "a.png", "A.png"))]  # fmt: skip
    source = prepared(tmp_path / "data", [(path, (0, 0, 60, 40)) for path in pictures])
    cut(source, tmp_path / "out")
    found = sorted((tmp_path / "out/train/kit").iterdir())
    assert [p.name for p in found] == ["A-3.png", "a-2.png", "a.png"]
    for path, original in zip(found, reversed(pictures), strict=True):
        assert (np.asarray(Image.open(path)) == np.asarray(Image.open(original))).all()
    again = cut(source, tmp_path / "out")
    assert "Wrote 0 crops" in again and "3 crops kept from an earlier run" in again


# Crops as a source ---------------------------------------------------------------------------------------------------


def test_prepare_reads_the_crops_and_draws_the_same_validation_split(tmp_path, monkeypatch):
    root = kaggle(tmp_path / "archive", "car_data/car_data")
    monkeypatch.chdir(root)
    cut(".", "cropped_images", "--margin", 0)  # the default folder, inside the source
    before = prepare(".", tmp_path / "before", progress=False)  # ignores the crops inside the source
    after = prepare("cropped_images", tmp_path / "after", progress=False)  # ignores the boxes of the originals
    assert before.boxes == 33 and after.boxes == 0 and not after.rejected
    one, two = load_table(tmp_path / "before"), load_table(tmp_path / "after")
    key = ["file", "label", "class_name", "split"]
    one, two = (t.assign(file=t["path"].map(lambda p: Path(p).name))[key].sort_values(key) for t in (one, two))
    assert one.to_numpy().tolist() == two.to_numpy().tolist() and RAM in set(two["class_name"])
    assert "Wrote 0 crops" in cut(".", "cropped_images", "--margin", 0)


def test_a_prepared_folder_keeps_its_splits(tmp_path):
    prepare(official(tmp_path / "cars"), tmp_path / "data", progress=False)
    assert "prepared table" in cut(tmp_path / "data", tmp_path / "out")
    names = load_table(tmp_path / "data").groupby("split")["path"].agg(lambda paths: {Path(p).name for p in paths})
    for split in ("train", "val"):
        assert {p.name for p in (tmp_path / "out" / split).rglob("*.jpg")} == names[split]


# Counts and the contact sheet ----------------------------------------------------------------------------------------


def test_counts_and_sheet_show_the_most_frequent_classes(tmp_path):
    order = [STANFORD_CARS[i] for i in (5, 1, 3, 8, 2, 9, 7)]
    classes = [STANFORD_CARS.index(name) + 1 for i, name in enumerate(order) for _ in range(9 - i)]
    output = cut(official(tmp_path / "cars", n=len(classes), classes=classes), tmp_path / "out", "--show-classes", 2)
    lines = [line.strip() for line in output.splitlines()]
    first = next(i for i, line in enumerate(lines) if line.startswith(order[0]))
    assert [line.split()[-1] for line in lines[first : first + 6]] == ["9", "8", "more", "5", "4", "3"]
    assert lines[first + 1].startswith(order[1]) and lines[first + 2] == "… 2 more"
    with Image.open(tmp_path / "out/samples.jpg") as sheet:
        assert sheet.format == "JPEG" and sheet.size == (640, 280)
        tiles = np.asarray(sheet.convert("L"), dtype=float)
    assert tiles[60:140, 60:260].std() > 20 and tiles[60:140, 380:580].std() > 20  # noise, like the pictures
    assert tiles[212:270, 20:300].min() < 100  # and a caption
    cut(tmp_path / "cars", tmp_path / "out", "--show-classes", 7)
    with Image.open(tmp_path / "out/samples.jpg") as sheet:
        assert sheet.size == (1600, 560)


def test_without_classes_no_sheet_is_written(tmp_path):
    output = cut(official(tmp_path / "cars", n=3), tmp_path / "out", "--show-classes", 0)
    assert HUMMER not in output and not (tmp_path / "out/samples.jpg").exists()


# Resuming, and other options -----------------------------------------------------------------------------------------


def test_a_killed_run_resumes_with_the_missing_crops(tmp_path):
    source, out = official(tmp_path / "cars", n=9), tmp_path / "out"
    cut(source, out)
    whole = cars(out)
    kept, lost, half, marked = sorted(whole)[:4]
    (out / lost).unlink()
    (out / half).write_bytes(b"")
    put(out / Path(half).parent / ".00007.123.tmp.jpg", whole[half][:100])  # left by a killed process
    (out / marked).write_bytes(b"cropped before")
    output = cut(source, out)
    assert "Wrote 2 crops" in output and "7 crops kept from an earlier run" in output
    now = {name: data for name, data in cars(out).items() if not Path(name).name.startswith(".")}
    assert now == whole | {marked: b"cropped before"} and now[kept] == whole[kept]
    assert "Wrote 9 crops" in cut(source, out, "--overwrite") and (out / marked).read_bytes() == whole[marked]


def test_other_options_need_overwrite(tmp_path):
    source, out = official(tmp_path / "cars", n=3), tmp_path / "out"
    cut(source, out)
    before = cars(out)
    words = ("--root-dir", source, "--output-dir", out)
    for options in (("--margin", 5), ("--size", 32)):
        output = error_of(*words, *options)
        assert "margin 16 and no size" in output and "--overwrite" in output
    assert cars(out) == before
    cut(source, out, "--size", 32, "--overwrite")
    assert {Image.open(p).size for p in out.glob("*/*/*.jpg")} == {(32, 32)}
    assert "margin 16 and size 32" in error_of(*words)
    other = official(tmp_path / "other", n=3)
    assert "holds the crops of" in error_of("--root-dir", other, "--output-dir", out, "--size", 32, "--overwrite")


def test_a_killed_overwrite_leaves_no_mixture_of_options(tmp_path, monkeypatch):
    source, out = official(tmp_path / "cars", n=6), tmp_path / "out"
    crop(source, out, progress=False)
    real, calls = Image.Image.save, []

    def killed(self, path, *rest, **options):
        if str(path).endswith(".jpg") and "train" in str(path):
            calls.append(path)
            if len(calls) > 2:
                raise KeyboardInterrupt
        return real(self, path, *rest, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", killed)
        with pytest.raises(KeyboardInterrupt):
            crop(source, out, size=32, overwrite=True, progress=False)
    assert 0 < len(cars(out)) < 6
    assert crop(source, out, size=32, progress=False).kept > 0
    assert {Image.open(p).size for p in out.glob("*/*/*.jpg")} == {(32, 32)} and len(cars(out)) == 6


# Originals -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["itself", "inside", "among classes", "around", "link", "link to a class"])
def test_originals_are_never_overwritten(tmp_path, way):
    root = kaggle(tmp_path / "archive", "cars")
    before = {p: p.read_bytes() for p in tmp_path.rglob("*.*") if p.is_file()}
    out = {
        "itself": root / "cars",  # the originals are at train/<class>/<file>
        "inside": root / "cars/train" / SMART / "out",
        "among classes": root / "cars/train/out",
        "around": tmp_path,
    }.get(way, tmp_path / "out")
    if way == "link":
        out.symlink_to(root / "cars", target_is_directory=True)
    if way == "link to a class":
        put(out / "crop.json", json.dumps({"source": str(root), "margin": 16, "size": None}).encode())
        (out / "train").mkdir()
        (out / "train" / SMART).symlink_to(root / "cars/train" / SMART, target_is_directory=True)
    for overwrite in ((), ("--overwrite",)):
        output = error_of("--root-dir", root, "--output-dir", out, *overwrite)
        assert "original picture" in output and "choose another --output-dir" in output
    assert before == {p: p.read_bytes() for p in before}
    assert way == "link to a class" or not list(tmp_path.rglob("crop.json"))


def test_a_folder_with_other_files_is_not_changed(tmp_path):
    out = by_class(tmp_path / "photos", THREE, n=1)
    before = cars(out)
    output = error_of("--root-dir", official(tmp_path / "cars", n=3), "--output-dir", out, "--overwrite")
    assert "did not write" in output and cars(out) == before
    put(tmp_path / "file")
    assert "cannot be written" in error_of("--root-dir", tmp_path / "cars", "--output-dir", tmp_path / "file")
    put(out / "crop.json", b"[]")
    assert "was not written by `twincar crop`" in error_of("--root-dir", tmp_path / "cars", "--output-dir", out)


# Rejected ------------------------------------------------------------------------------------------------------------


def test_unusable_pictures_and_boxes_are_rejected(tmp_path):
    boxes = [(2, 3, 50, 30)] * 9
    boxes[3], boxes[4], boxes[5] = (50, 3, 2, 30), (200, 3, 300, 30), (0, -1, 63, 42)
    classes = [1, 2, 3] * 3
    classes[6] = 197
    root = official(tmp_path / "cars", n=9, boxes=boxes, classes=classes)
    put(root / "cars_train/00001.jpg", b"<html>")
    (root / "cars_train/00002.jpg").unlink()
    put(root / "cars_train/00003.jpg", picture_bytes((300, 200))[:9000])
    output = cut(root, tmp_path / "out", "--margin", 0)
    reasons = rejected(tmp_path / "out")
    assert set(reasons) == {f"{i:05d}.jpg" for i in (1, 2, 3, 4, 5, 7)}
    assert reasons["00001.jpg"] == "unreadable: not a picture" and reasons["00002.jpg"] == "missing"
    assert "truncated" in reasons["00003.jpg"] and "upside down" in reasons["00004.jpg"]
    assert "cars_train_annos.mat row 5" in reasons["00005.jpg"] and "197" in reasons["00007.jpg"]
    assert (
        "Wrote 3 crops" in output and "6 pictures rejected" in output and "2 box" in output and "rejected.csv" in output
    )
    (over_the_edge,) = (tmp_path / "out").glob("train/*/00006.jpg")
    assert Image.open(over_the_edge).size == (60, 40)


def test_a_picture_without_a_box_is_rejected(tmp_path):
    root = kaggle(tmp_path / "archive", "cars")
    put(root / "cars/train" / SMART / "99999.jpg")
    cut(root, tmp_path / "out")
    assert rejected(tmp_path / "out") == {"99999.jpg": "no box"} and len(cars(tmp_path / "out")) == 33


def test_broken_exif_does_not_reject_a_picture(tmp_path):
    path = tmp_path / "in/a.jpg"
    Image.open(put(path)).save(path, exif=b"Exif\x00\x00XX*\x00broken")
    cut(prepared(tmp_path / "data", [(path, (2, 2, 30, 30))]), tmp_path / "out")
    assert not rejected(tmp_path / "out")


def test_sources_that_cannot_be_cropped(tmp_path):
    out = ("--output-dir", tmp_path / "out")
    plain = by_class(tmp_path / "plain", THREE)
    assert "There are no boxes in" in error_of("--root-dir", plain, *out)
    prepare(plain, tmp_path / "data", progress=False)
    assert "There are no boxes in" in error_of("--root-dir", tmp_path / "data", *out)
    put(tmp_path / "hub/data/train.parquet", b"PAR1")
    assert "parquet files, which have no boxes" in error_of("--root-dir", tmp_path / "hub", *out)
    assert "There is no folder" in error_of("--root-dir", "someone/stanford_cars", *out)
    assert not (tmp_path / "out").exists()
    root = official(tmp_path / "cars", n=2)
    shutil.rmtree(root / "cars_train")
    put(root / "cars_train/other.jpg")
    assert "could be cropped (2 missing)" in error_of("--root-dir", root, *out)
    savemat(root / "devkit/cars_train_annos.mat", annotations(["a.jpg"]))
    assert "could be cropped" in error_of("--root-dir", root, "--output-dir", tmp_path / "out2")
