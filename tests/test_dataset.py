"""`prepare` from outside: every layout, what is rejected, the split, and what a person reads when it fails."""

import json
import os
import shutil
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat
from sklearn.model_selection import train_test_split

from tests.conftest import (
    HUMMER,
    RAM,
    SMART,
    THREE,
    annotations,
    by_class,
    kaggle,
    official,
    picture_bytes,
    put,
)
from twincar.config import STANFORD_CARS, canonical_class_name
from twincar.dataset import COLUMNS, DataError, class_names, load_table, prepare, stratified_split


def run(source, out, **options):
    summary = prepare(source, out, progress=False, **options)
    return summary, load_table(out)


def rejected(out) -> dict[str, str]:
    rows = pd.read_csv(out / "rejected.csv", dtype=str)
    return {Path(path).name: reason for path, reason in zip(rows["path"], rows["reason"], strict=True)}


def names_of(table, split) -> set[str]:
    return {Path(p).name for p in table.loc[table["split"] == split, "path"]}


# The split -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("val_size", [0.1, 0.15, 0.3])
@pytest.mark.parametrize("seed", [42, 7])
def test_split_is_sklearns_on_a_set_like_stanford_cars(val_size, seed):
    labels = np.random.default_rng(0).permutation(np.arange(8144) % 196)
    df = pd.DataFrame({"label": labels})
    _, val = train_test_split(df, test_size=val_size, stratify=df.label, random_state=seed)
    is_val = stratified_split(labels, val_size, seed)
    assert set(np.flatnonzero(is_val)) == set(val.index)
    assert val_size != 0.1 or is_val.sum() == 815


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 12), max_size=60), st.floats(0, 0.95), st.integers(0, 2**32 - 1))
def test_split_never_crashes_and_never_takes_the_last_training_picture(labels, val_size, seed):
    is_val = stratified_split(labels, val_size, seed)
    assert is_val.shape == (len(labels),)
    assert set(np.array(labels)[~is_val]) == set(labels)
    assert is_val.sum() <= np.ceil(val_size * len(labels))
    assert (is_val == stratified_split(labels, val_size, seed)).all()


def test_one_picture_a_class_is_trained_on():
    assert not stratified_split([0, 1, 2], 0.5).any()
    assert stratified_split([0, 0, 1, 1, 2, 2], 0.1).sum() == 1  # fewer validation pictures than classes


def test_five_classes_of_twenty(tmp_path):
    by_class(tmp_path / "cars", ["ant", "bee", "cat", "dog", "eel"], n=20)
    _, table = run(tmp_path / "cars", tmp_path / "out")
    assert table[table["split"] == "val"]["label"].value_counts().to_dict() == dict.fromkeys(range(5), 2)


def test_a_lost_or_broken_file_does_not_move_the_split(tmp_path):
    root = official(tmp_path / "cars")
    _, before = run(root, tmp_path / "before")
    lost = min(names_of(before, "val"))
    (root / "cars_train" / lost).unlink()
    put(root / "cars_train/00001.jpg", b"no picture")
    _, after = run(root, tmp_path / "after")
    assert names_of(after, "val") == names_of(before, "val") - {lost, "00001.jpg"}
    assert names_of(after, "train") == names_of(before, "train") - {lost, "00001.jpg"}


def test_official_by_class_and_kaggle_draw_the_same_pictures(tmp_path):
    _, one = run(official(tmp_path / "official"), tmp_path / "1")
    _, two = run(by_class(tmp_path / "folders", THREE), tmp_path / "2")
    for split in ("train", "val"):
        assert names_of(one, split) == names_of(two, split)
    assert len(names_of(one, "val")) == 3


# Official layout -----------------------------------------------------------------------------------------------------


def test_official_layout(tmp_path):
    root = official(tmp_path / "cars")
    summary, table = run(root, tmp_path / "out")
    assert list(table.columns) == COLUMNS == list(pd.read_csv(tmp_path / "out/cars.csv").columns)
    first = table.iloc[1]
    assert first["path"] == str(root / "cars_train/00002.jpg")
    assert (first["class_name"], first["make"], first["body"], first["year"]) == (RAM, "Ram", "Minivan", 2012)
    assert first["label"] == STANFORD_CARS.index(RAM)
    assert (table[["x1", "y1", "x2", "y2"]] == [1, 2, 50, 30]).all(axis=None)  # 1-based, inclusive -> PIL's
    assert class_names(table) == STANFORD_CARS
    assert summary.splits == {"train": 27, "val": 3, "test": 0, "holdout": 0}
    said = summary.describe()
    assert "official devkit" in said and "27 train, 3 val" in said and "every picture has one" in said


def test_doubled_folders_and_labels_beside_the_devkit(tmp_path):
    root = official(tmp_path, train="cars_train/cars_train", devkit="car_devkit/devkit")
    for name in ("00001.jpg", "00002.jpg"):
        put(root / "cars_test/cars_test" / name)
    savemat(root / "car_devkit/devkit/cars_test_annos.mat", annotations(["00001.jpg", "00002.jpg"]))
    summary, table = run(root, tmp_path / "out")
    assert summary.splits["test"] == 0
    assert "2 test pictures without label left out" in summary.describe()
    savemat(root / "cars_test_annos_withlabels.mat", annotations(["00001.jpg", "00002.jpg"], [1, 196]))
    summary, table = run(root, tmp_path / "out")
    assert table[table["split"] == "test"]["label"].tolist() == [0, 195]
    assert "left out" not in summary.describe()
    summary, table = run(root, tmp_path / "out", keep_test=False)
    assert set(table["split"]) == {"train", "val"}


def test_missing_files_are_told_and_the_run_goes_on(tmp_path):
    root = official(tmp_path / "cars")
    for i in range(4, 31):
        (root / f"cars_train/{i:05d}.jpg").unlink()
    savemat(root / "devkit/cars_test_annos_withlabels.mat", annotations(["00001.jpg"], [1]))
    summary, table = run(root, tmp_path / "out")
    assert len(table) == 3
    assert set(rejected(tmp_path / "out").values()) == {"missing"}
    assert "27 pictures rejected (27 missing)" in summary.describe()
    assert "no pictures in cars_test/: 1 annotated picture left out" in summary.describe()


def test_a_devkit_of_one_picture(tmp_path):
    _, table = run(official(tmp_path / "cars", n=1), tmp_path / "out")
    assert table["split"].tolist() == ["train"]


def test_bad_boxes_and_classes_are_rejected_with_file_and_row(tmp_path):
    boxes = [(2, 3, 50, 30)] * 30
    boxes[3] = (50, 3, 2, 30)  # upside down
    boxes[4] = (200, 3, 300, 30)  # beside the picture, which is 60x40
    boxes[5] = (0, -1, 63, 42)  # a little over the edge
    boxes[6] = (10, 10, 9, 20)  # empty
    classes = [1, 2, 3] * 10
    classes[7], classes[8] = 197, 0
    summary, table = run(official(tmp_path / "cars", boxes=boxes, classes=classes), tmp_path / "out")
    reasons = rejected(tmp_path / "out")
    assert set(reasons) == {f"{i:05d}.jpg" for i in (4, 5, 7, 8, 9)}
    for i in (4, 5, 7):
        assert reasons[f"{i:05d}.jpg"].startswith("box: ")
        assert f"({i:05d}.jpg, cars_train_annos.mat row {i})" in reasons[f"{i:05d}.jpg"]
    assert "197" in reasons["00008.jpg"] and "cars_train_annos.mat row 8" in reasons["00008.jpg"]
    assert summary.rejected == {"box": 3, "class id": 2}
    clipped = table[table["path"].str.endswith("00006.jpg")][["x1", "y1", "x2", "y2"]]
    assert clipped.iloc[0].tolist() == [0, 0, 60, 40]


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(*[st.integers(-80, 160)] * 4), min_size=8, max_size=8))
def test_every_box_in_the_table_is_a_crop_of_its_picture(tmp_path_factory, boxes):
    tmp_path = tmp_path_factory.mktemp("boxes")
    official(tmp_path / "cars", n=8, boxes=[*boxes[:-1], (1, 1, 60, 40)])
    _, table = run(tmp_path / "cars", tmp_path / "out")
    assert len(table) + len(rejected(tmp_path / "out")) == 8
    for row in table.itertuples():
        assert 0 <= row.x1 < row.x2 <= 60 and 0 <= row.y1 < row.y2 <= 40


# Folders by class ----------------------------------------------------------------------------------------------------


def test_stanford_cars_by_class(tmp_path):
    root = by_class(tmp_path / "cars", THREE)
    by_class(root, THREE, n=2, split="test")
    put(root / "train" / HUMMER / "._00001.jpg", b"left by macOS")
    put(root / "train" / HUMMER / "Thumbs.db", b"")
    summary, table = run(root, tmp_path / "out")
    assert summary.splits == {"train": 27, "val": 3, "test": 6, "holdout": 0} and not summary.rejected
    assert set(table["class_name"]) == set(THREE)  # "/", which the folder's name cannot hold, is back
    assert all(STANFORD_CARS[i] == name for i, name in zip(table["label"], table["class_name"], strict=True))
    assert table[["x1", "y1", "x2", "y2"]].isna().all(axis=None)
    assert class_names(table) == STANFORD_CARS
    assert "Boxes: none" in summary.describe()


@pytest.mark.parametrize("val", ["valid", "val"])
def test_own_validation_pictures_and_own_classes(tmp_path, val):
    root = by_class(tmp_path / "cars", ["Zonda 2001", "apple", "NA"], n=5)
    by_class(root, ["apple", "NA"], n=1, split=val, start=100)
    summary, table = run(root, tmp_path / "out")
    assert names_of(table, "val") == {"00100.jpg", "00101.jpg"}
    assert class_names(table) == ("NA", "Zonda 2001", "apple")
    assert table["year"].isna().sum() == 12 and set(table["year"].dropna()) == {2001}
    assert "own validation pictures" in summary.describe()


def test_classes_directly_below_the_source(tmp_path):
    by_class(tmp_path, ["b", "a"], n=10, split="cars")
    _, table = run(tmp_path / "cars", tmp_path / "out")
    assert class_names(table) == ("a", "b")
    assert table["split"].value_counts().to_dict() == {"train": 18, "val": 2}


def test_a_devkit_beside_folders_by_class_gives_boxes(tmp_path):
    root = official(tmp_path / "cars")
    shutil.rmtree(root / "cars_train")
    by_class(root, THREE), by_class(root, THREE, n=1, split="test")
    savemat(root / "devkit/cars_test_annos.mat", annotations(["00001.jpg"]))  # no labels: tells nothing here
    summary, table = run(root, tmp_path / "out")
    assert summary.boxes == 30 and not summary.rejected
    assert table.loc[table["split"] == "train", "x2"].unique().tolist() == [50]


def test_a_class_that_lost_all_its_pictures_leaves_no_gap(tmp_path):
    root = by_class(tmp_path / "cars", ["a", "b", "c"], n=3)
    for path in (root / "train/b").iterdir():
        path.write_bytes(b"")
    summary, table = run(root, tmp_path / "out")
    assert class_names(table) == ("a", "c") and sorted(set(table["label"])) == [0, 1]
    assert "1 class without a usable picture left out: b" in summary.describe()


def test_pictures_inside_out_are_stored_relative(tmp_path):
    by_class(tmp_path / "data/raw", ["a", "b"])
    run(tmp_path / "data/raw", tmp_path / "data")
    assert pd.read_csv(tmp_path / "data/cars.csv")["path"].str.startswith("raw/train/").all()
    (tmp_path / "data").rename(tmp_path / "moved")
    assert all(Path(p).is_file() and Path(p).is_absolute() for p in load_table(tmp_path / "moved")["path"])


# Kaggle --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inner", "source"), [("car_data/car_data", "."), ("car_data/car_data", "car_data/car_data"), ("car_data", ".")]
)
def test_kaggle_layout(tmp_path, inner, source):
    root = kaggle(tmp_path / "archive", inner)
    summary, table = run(root / source, tmp_path / "out")
    assert summary.splits == {"train": 27, "val": 3, "test": 3, "holdout": 0} and summary.boxes == 33
    train = table[table["split"] != "test"]
    numbers = [int(Path(p).stem) for p in train["path"]]
    assert train["x1"].tolist() == [n - 1 for n in numbers]
    assert class_names(table) == STANFORD_CARS
    _, plain = run(by_class(tmp_path / "folders", THREE), tmp_path / "plain")
    assert names_of(table, "val") == names_of(plain, "val")


def test_kaggle_rows_without_a_file_or_a_class(tmp_path):
    root = kaggle(tmp_path / "archive", "car_data/car_data")
    (root / "car_data/car_data/train" / SMART / "00003.jpg").unlink()
    lines = (root / "anno_train.csv").read_text().splitlines()
    lines[4] = lines[4].rsplit(",", 1)[0] + ",400"
    lines[5] = lines[5].rsplit(",", 1)[0] + ",1"  # 00006.jpg lies in the folder of another class
    (root / "anno_train.csv").write_text("\n".join(lines))
    summary, table = run(root, tmp_path / "out")
    reasons = rejected(tmp_path / "out")
    assert reasons["00003.jpg"] == "missing" and "400" in reasons["00005.jpg"] and "row 5" in reasons["00005.jpg"]
    assert len(reasons) == 2
    row = table[table["path"].str.endswith("train/" + SMART + "/00006.jpg")].iloc[0]
    assert row["class_name"] == SMART and np.isnan(row["x1"])
    assert "1 box not used" in summary.describe()


def test_tables_about_other_classes_are_not_used(tmp_path):
    root = kaggle(tmp_path / "archive", "unused")
    shutil.rmtree(root / "unused")
    by_class(root / "cars", ["a", "b"])
    summary, table = run(root / "cars", tmp_path / "out")
    assert class_names(table) == ("a", "b") and not summary.rejected and summary.boxes == 0
    assert "not about these classes" in summary.describe()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        (
            "anno_train.csv",
            b"00001.jpg,1,2,3,4,5\nfilename,width,height,class,xmin,ymin,xmax,ymax\n",
            "row 2 has 8 columns",
        ),
        (
            "anno_train.csv",
            b"image_id,label\n1,2\n",
            "row 1 has 2 columns: file, x1, y1, x2, y2 and class are expected",
        ),
        ("anno_train.csv", b"\xff\xfe\x00\x01", "is not UTF-8 text"),
        ("names.csv", "Citroën\n".encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_annotations_of_another_kind_are_one_sentence_with_file_and_row(tmp_path, name, content, says):
    root = kaggle(tmp_path / "archive", "cars")
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} {says}") as caught:
        prepare(root, tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)


def test_a_devkit_of_other_columns_is_one_sentence(tmp_path):
    root = official(tmp_path / "cars")
    other = np.array([("a.jpg", 1)] * 3, dtype=[("image", object), ("label", object)])
    for value in ({"annotations": other}, {"boxes": np.zeros((3, 4))}, {"annotations": np.zeros(3)}):
        savemat(root / "devkit/cars_train_annos.mat", value)
        with pytest.raises(DataError, match=r"cars_train_annos\.mat holds no annotations, no file in row 1"):
            prepare(root, tmp_path / "out", progress=False)


def test_when_every_row_is_wrong_the_sentence_names_the_first(tmp_path):
    root = official(tmp_path / "cars", boxes=[(50, 30, 2, 3)] * 30)
    with pytest.raises(
        DataError, match=r"30 box, the first is box: 49,29,2,3 is empty or upside down \(00001\.jpg.*row 1\)"
    ):
        prepare(root, tmp_path / "out", progress=False)


# The same photo more than once ---------------------------------------------------------------------------------------


def shades(seed: int) -> Image.Image:
    """A picture that no other seed's is like: large soft patches."""
    patches = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((160, 120), Image.Resampling.BICUBIC)


def test_a_photo_in_two_splits_or_under_two_names_is_reported(tmp_path):
    """Saved anew, scaled, cut by two pixels; while other photos, and pictures of one tone, stay themselves."""
    cars = tmp_path / "cars"
    photos = [shades(seed) for seed in range(15)]
    for seed, photo in enumerate(photos):
        folder = cars / ("test/a" if seed > 11 else f"train/{'ab'[seed % 2]}")
        folder.mkdir(parents=True, exist_ok=True)
        photo.save(folder / f"{seed}.png")
    first = photos[0]
    first.save(cars / "test/a/again.jpg", quality=40)
    first.resize((320, 240)).save(cars / "train/b/scaled.png")
    photos[1].crop((2, 1, 158, 119)).save(cars / "test/a/cut.png")
    for name in ("white", "white2"):
        Image.new("RGB", (60, 40), "white").save(cars / f"train/a/{name}.png")
    summary, _ = run(cars, tmp_path / "out", val_size=0)
    found = pd.read_csv(tmp_path / "out/duplicates.csv")
    groups = {frozenset(Path(path).name for path in paths) for _, paths in found.groupby("photo")["path"]}
    assert groups == {frozenset({"0.png", "again.jpg", "scaled.png"}), frozenset({"1.png", "cut.png"})}
    assert list(found.columns) == ["photo", "path", "split", "class_name"]
    assert "2 photos more than once (2 of them in train/test; 2 under different class names): see" in summary.describe()


def test_without_copies_nothing_is_said(tmp_path):
    for seed in range(4):
        put(tmp_path / "cars" / "ab"[seed % 2] / f"{seed}.jpg", picture_bytes(seed=seed))
    summary, _ = run(tmp_path / "cars", tmp_path / "out")
    assert pd.read_csv(tmp_path / "out/duplicates.csv").empty
    assert "more than once" not in summary.describe()


# Pictures that are none ----------------------------------------------------------------------------------------------


def test_unusable_pictures_are_rejected_with_a_reason(tmp_path, monkeypatch):
    root = by_class(tmp_path / "cars", ["a", "b"])
    big = picture_bytes((300, 200))
    bad = {
        "empty.jpg": b"",
        "text.jpg": b"<html>not found</html>",
        "cut.jpg": big[: len(big) // 2],
        "cut.png": picture_bytes((90, 90), "PNG")[:9000],
        "flat.jpg": picture_bytes((100, 15)),
        "long.jpg": picture_bytes((200, 20)),
        "bomb.png": picture_bytes((400, 400), "PNG"),
    }
    for name, data in bad.items():
        put(root / "train/a" / name, data)
    put(root / "train/a/sound.png", picture_bytes((128, 16), "PNG"))  # just not misshapen
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    summary, table = run(root, tmp_path / "out")
    reasons = rejected(tmp_path / "out")
    assert set(reasons) == set(bad)
    assert {n for n, r in reasons.items() if r.startswith("misshapen: ")} == {"flat.jpg", "long.jpg"}
    assert reasons["text.jpg"] == "unreadable: not a picture"
    assert "truncated" in reasons["cut.jpg"] and "400x400" in reasons["bomb.png"]
    assert summary.rejected == {"unreadable": 5, "misshapen": 2} and len(table) == 21
    assert "7 pictures rejected (5 unreadable, 2 misshapen)" in summary.describe()


def test_no_usable_picture(tmp_path):
    root = by_class(tmp_path / "cars", ["a", "b"], n=1)
    for path in root.rglob("*.jpg"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"No usable picture .*2 unreadable"):
        prepare(root, tmp_path / "out", progress=False)
    assert not (tmp_path / "out/cars.csv").exists() and len(rejected(tmp_path / "out")) == 2


# Holding out ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("as_folder", [True, False])
def test_holdout_takes_training_pictures_only(tmp_path, as_folder):
    root = by_class(tmp_path / "cars", THREE)
    by_class(root, THREE, n=1, split="test")
    _, before = run(root, tmp_path / "before")
    val = min(names_of(before, "val"))
    train = sorted(names_of(before, "train"))[5]
    hold = tmp_path / "hold"
    if as_folder:
        put(hold / val), put(hold / "deeper" / train), put(hold / "00001.jpg")
    else:
        hold.write_text(f"{val}\n\nphotos/{train}\r\n00001.jpg\n")
    summary, table = run(root, tmp_path / "out", holdout=hold)
    assert names_of(table, "holdout") == {train, "00001.jpg"} - names_of(before, "val")
    assert names_of(table, "val") == names_of(before, "val")
    assert names_of(table, "test") == names_of(before, "test")
    assert "Of 3 file names to hold out" in summary.describe()


def test_holdout_errors(tmp_path):
    by_class(tmp_path / "cars", ["a", "b"])
    (tmp_path / "empty.txt").write_text("\n")
    for name in ("nowhere", "empty.txt"):
        with pytest.raises(DataError, match="holdout is a folder of pictures or a text file"):
            prepare(tmp_path / "cars", tmp_path / "out", holdout=tmp_path / name, progress=False)


# Parquet -------------------------------------------------------------------------------------------------------------


def parquet(path: Path, labels, names=THREE, plain=False, image_names=True, start=1) -> Path:
    images = [picture_bytes(seed=start + i) for i in range(len(labels))]
    files = [f"{start + i:05d}.jpg" if image_names else None for i in range(len(labels))]
    if not plain:
        images = [{"bytes": b, "path": f} for b, f in zip(images, files, strict=True)]
    table = pa.table({"image": images, "label": labels, "other": [0] * len(labels)})
    if names:
        features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path)
    return path


def test_parquet_folder(tmp_path):
    labels = [0, 1, 2] * 10
    parquet(tmp_path / "hub/data/train-00000-of-00002.parquet", labels[:20])
    parquet(tmp_path / "hub/data/train-00001-of-00002.parquet", labels[20:], start=21)
    parquet(tmp_path / "hub/data/test-00000-of-00001.parquet", [0, 1, 2])
    parquet(tmp_path / "hub/data/contrast-00000-of-00001.parquet", [0, 1, 2])  # test pictures, spoilt
    summary, table = run(tmp_path / "hub", tmp_path / "out")
    assert summary.splits == {"train": 27, "val": 3, "test": 3, "holdout": 0}
    assert "1 parquet file of other splits left out (contrast-" in summary.describe()
    assert class_names(table) == STANFORD_CARS and set(table["class_name"]) == set(THREE)
    _, plain = run(by_class(tmp_path / "folders", THREE), tmp_path / "plain")
    assert names_of(table, "val") == names_of(plain, "val")
    second = tmp_path / "out/pictures/train" / canonical_class_name(RAM) / "00002.jpg"
    assert second.read_bytes() == picture_bytes(seed=2)  # unchanged
    assert "pictures/train/AM General Hummer SUV 2000/00001.jpg" in set(pd.read_csv(tmp_path / "out/cars.csv")["path"])


def test_parquet_goes_on_where_it_was_killed(tmp_path):
    file = parquet(tmp_path / "cars.parquet", [0, 1, 2] * 4)
    summary, first = run(file, tmp_path / "out")
    assert summary.splits["test"] == 0 and len(first) == 12  # nothing named: all train
    kept, cut = Path(first["path"][0]), Path(first["path"][1])
    os.utime(kept, (1, 1))
    whole = cut.read_bytes()
    cut.write_bytes(whole[:100])
    put(cut.with_name("half.jpg.part"), b"")
    (tmp_path / "out/cars.csv").unlink()
    _, again = run(file, tmp_path / "out")
    assert kept.stat().st_mtime == 1 and cut.read_bytes() == whole
    pd.testing.assert_frame_equal(again, first)
    _, same = run(tmp_path, tmp_path / "out")  # what was written below OUT is no source
    assert len(same) == 12


def test_parquet_of_plain_bytes_and_text_labels(tmp_path):
    file = parquet(tmp_path / "cars.parquet", ["kit", "a/../b", "..", "kit"], names=None, plain=True)
    _, table = run(file, tmp_path / "out", val_size=0)
    assert class_names(table) == ("..", "a-..-b", "kit") or class_names(table) == ("..", "a/../b", "kit")
    assert all(Path(p).is_relative_to(tmp_path / "out/pictures/train") for p in table["path"])
    assert len(set(table["path"])) == 4


def test_parquet_rows_that_cannot_be_used(tmp_path):
    file = parquet(tmp_path / "cars.parquet", [0, 1, 3, -1, None, 0])
    table = pq.read_table(file)
    images = table["image"].to_pylist()
    images[0] = None
    images[5]["path"] = "../../../escape.jpg"
    pq.write_table(table.set_column(0, "image", pa.array(images, table["image"].type)), file)
    summary, table = run(file, tmp_path / "out")
    assert summary.rejected == {"missing": 1, "class id": 1} and len(table) == 2
    assert "2 pictures without label left out" in summary.describe()
    assert not list(tmp_path.glob("*.jpg"))


def test_numbers_without_names_are_classes_in_their_order(tmp_path):
    file = parquet(tmp_path / "cars.parquet", [10, 9, 2, 10], names=None, image_names=False)
    _, table = run(file, tmp_path / "out")
    assert class_names(table) == ("2", "9", "10")


def test_parquet_errors(tmp_path):
    put(tmp_path / "broken/a.parquet", b"PAR1 no")
    with pytest.raises(DataError, match="cannot be read"):
        prepare(tmp_path / "broken", tmp_path / "out", progress=False)
    (tmp_path / "other").mkdir()
    pq.write_table(pa.table({"img": [b""], "class": [1]}), tmp_path / "other/a.parquet")
    with pytest.raises(DataError, match="has the columns img, class: image and label are needed"):
        prepare(tmp_path / "other", tmp_path / "out", progress=False)


# The Hub, by its own client against a server on this machine ---------------------------------------------------------


def test_hub_dataset(tmp_path, hub):
    endpoint, served = hub.url, hub.root
    data = served / "someone/stanford_cars/data"
    parquet(data / "train-00000-of-00001.parquet", [0, 1, 2] * 10)
    parquet(data / "test-00000-of-00001.parquet", [0, 1, 2])
    put(data / "fog-00000-of-00001.parquet", b"never fetched")
    put(served / "someone/stanford_cars/README.md", b"# cars")
    summary, table = run("someone/stanford_cars", tmp_path / "out", endpoint=endpoint)
    assert summary.layout == "Hub dataset someone/stanford_cars"
    assert summary.splits == {"train": 27, "val": 3, "test": 3, "holdout": 0}
    assert class_names(table) == STANFORD_CARS
    assert not list((tmp_path / "cache").rglob("fog*"))


def test_hub_errors_are_one_sentence(tmp_path, hub):
    endpoint, served = hub.url, hub.root
    put(served / "someone/texts/README.md", b"no pictures")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for source, at, says in (
        ("someone/nothing", endpoint, "neither a folder someone/nothing here nor a dataset of that name"),
        ("someone/gated", endpoint, "accept its terms"),
        ("someone/texts", endpoint, "holds no .parquet files"),
        ("someone/cars", nobody, "could not be fetched"),
    ):
        with pytest.raises(DataError, match=says) as caught:
            prepare(source, tmp_path / "out", endpoint=at, progress=False)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


# Errors and reading back ---------------------------------------------------------------------------------------------


def test_sources_that_are_none(tmp_path):
    put(tmp_path / "cars.zip", b"PK")
    put(tmp_path / "flat/1.jpg"), put(tmp_path / "flat/2.jpg")
    (tmp_path / "bad/cars_train").mkdir(parents=True)
    put(tmp_path / "bad/cars_train/00001.jpg"), put(tmp_path / "bad/devkit/cars_train_annos.mat", b"<html>")
    for name, says in (
        ("nowhere", "There is no .*nowhere: give a folder"),
        ("cars.zip", "unpack archives first"),
        ("flat", "No cars were found .*cars_train/.*train/<class>/.*parquet"),
        ("bad", "cannot be read as a MATLAB file"),
    ):
        with pytest.raises(DataError, match=says):
            prepare(tmp_path / name, tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="val_size is 1"):
        prepare(tmp_path / "flat", tmp_path / "out", val_size=1, progress=False)
    put(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written"):
        prepare(by_class(tmp_path / "cars", ["a", "b"]), tmp_path / "file", progress=False)


def test_load_table_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_table("data")
    assert str(caught.value) == "There is no data/cars.csv: run `twincar prepare SOURCE --out data` first."
    by_class(tmp_path / "cars", ["a", "b"])
    run("cars", "data")
    good = Path("data/cars.csv").read_text()
    for spoilt, says in (
        ("", "cannot be read"),
        (good.splitlines()[0] + "\n", "has no rows"),
        (good.replace("label,", "lable,", 1), "has no column label"),
        (good.replace(",train", ",dev", 1), "has the split 'dev'"),
        (good.replace(",0,a", ",zero,a", 1), "text where a number belongs"),
    ):
        Path("data/cars.csv").write_text(spoilt)
        with pytest.raises(DataError, match=says):
            load_table("data")


def test_class_names_of_a_muddled_table(tmp_path):
    by_class(tmp_path / "cars", ["a", "b"])
    _, table = run(tmp_path / "cars", tmp_path / "out")
    with pytest.raises(DataError, match="one class name each"):
        class_names(table.assign(label=0))


def test_a_failing_run_leaves_the_old_table(tmp_path, monkeypatch):
    root = by_class(tmp_path / "cars", ["a", "b"])
    _, table = run(root, tmp_path / "out")

    def killed(self, path, **options):
        Path(path).write_text("path,lab")
        raise KeyboardInterrupt

    monkeypatch.setattr(pd.DataFrame, "to_csv", killed)
    with pytest.raises(KeyboardInterrupt):
        prepare(root, tmp_path / "out", progress=False)
    pd.testing.assert_frame_equal(load_table(tmp_path / "out"), table)


def test_progress_bars_do_not_change_the_result(tmp_path, capsys):
    root = by_class(tmp_path / "cars", ["a", "b"])
    assert prepare(root, tmp_path / "1").splits == prepare(root, tmp_path / "2", progress=False).splits
