"""`prepare` with the layouts of folders: official, by class, Kaggle."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from tests.conftest import (
    HUMMER,
    RAM,
    SMART,
    THREE,
    annotations,
    by_class,
    kaggle,
    official,
    put,
)
from tests.helpers.prepared import names_of, rejected, run
from twincar.config import STANFORD_CARS
from twincar.data.table import COLUMNS, DataError, class_names, load_table, prepare

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
    text = summary.describe()
    assert "official devkit" in text and "27 train, 3 val" in text and "every picture has one" in text


def test_doubled_folders_and_labels_next_to_the_devkit(tmp_path):
    root = official(tmp_path, train="cars_train/cars_train", devkit="car_devkit/devkit")
    for name in ("00001.jpg", "00002.jpg"):
        put(root / "cars_test/cars_test" / name)
    savemat(root / "car_devkit/devkit/cars_test_annos.mat", annotations(["00001.jpg", "00002.jpg"]))
    summary, table = run(root, tmp_path / "out")
    assert summary.splits["test"] == 0
    assert "2 pictures not used: 2 in cars_test/cars_test/ (without label; with cars_test_annos" in summary.describe()
    savemat(root / "cars_test_annos_withlabels.mat", annotations(["00001.jpg", "00002.jpg"], [1, 196]))
    summary, table = run(root, tmp_path / "out")
    assert table[table["split"] == "test"]["label"].tolist() == [0, 195]
    assert "not used" not in summary.describe()
    summary, table = run(root, tmp_path / "out", keep_test=False)
    assert set(table["split"]) == {"train", "val"}


def test_missing_files_are_reported(tmp_path):
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
    boxes[4] = (200, 3, 300, 30)  # outside the picture, which is 60x40
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
    assert set(table["class_name"]) == set(THREE)  # with "/", which a folder name cannot contain
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


def test_classes_directly_in_the_source(tmp_path):
    by_class(tmp_path, ["b", "a"], n=10, split="cars")
    _, table = run(tmp_path / "cars", tmp_path / "out")
    assert class_names(table) == ("a", "b")
    assert table["split"].value_counts().to_dict() == {"train": 18, "val": 2}


def test_a_devkit_next_to_folders_by_class_gives_boxes(tmp_path):
    root = official(tmp_path / "cars")
    shutil.rmtree(root / "cars_train")
    by_class(root, THREE), by_class(root, THREE, n=1, split="test")
    savemat(root / "devkit/cars_test_annos.mat", annotations(["00001.jpg"]))  # no labels: not used
    summary, table = run(root, tmp_path / "out")
    assert summary.boxes == 30 and not summary.rejected
    assert table.loc[table["split"] == "train", "x2"].unique().tolist() == [50]


def test_labels_stay_consecutive_without_the_pictures_of_a_class(tmp_path):
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
    lines[5] = lines[5].rsplit(",", 1)[0] + ",1"  # 00006.jpg is in the folder of another class
    (root / "anno_train.csv").write_text("\n".join(lines))
    summary, table = run(root, tmp_path / "out")
    reasons = rejected(tmp_path / "out")
    assert reasons["00003.jpg"] == "missing" and "400" in reasons["00005.jpg"] and "row 5" in reasons["00005.jpg"]
    assert len(reasons) == 2
    row = table[table["path"].str.endswith("train/" + SMART + "/00006.jpg")].iloc[0]
    assert row["class_name"] == SMART and np.isnan(row["x1"])
    assert "1 box not used" in summary.describe()


def test_annotations_of_other_classes_are_not_used(tmp_path):
    root = kaggle(tmp_path / "archive", "unused")
    shutil.rmtree(root / "unused")
    by_class(root / "cars", ["a", "b"])
    summary, table = run(root / "cars", tmp_path / "out")
    assert class_names(table) == ("a", "b") and not summary.rejected and summary.boxes == 0
    assert "not about these classes" in summary.describe()


@pytest.mark.parametrize(
    ("name", "content", "message"),
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
def test_annotations_of_another_kind_are_an_error_with_file_and_row(tmp_path, name, content, message):
    root = kaggle(tmp_path / "archive", "cars")
    (root / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} {message}") as caught:
        prepare(root, tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)


def test_a_devkit_of_other_columns_is_an_error(tmp_path):
    root = official(tmp_path / "cars")
    other = np.array([("a.jpg", 1)] * 3, dtype=[("image", object), ("label", object)])
    for value in ({"annotations": other}, {"boxes": np.zeros((3, 4))}, {"annotations": np.zeros(3)}):
        savemat(root / "devkit/cars_train_annos.mat", value)
        with pytest.raises(DataError, match=r"cars_train_annos\.mat holds no annotations, no file in row 1"):
            prepare(root, tmp_path / "out", progress=False)


def test_if_every_row_is_wrong_the_error_names_the_first(tmp_path):
    root = official(tmp_path / "cars", boxes=[(50, 30, 2, 3)] * 30)
    with pytest.raises(
        DataError, match=r"30 box, the first is box: 49,29,2,3 is empty or upside down \(00001\.jpg.*row 1\)"
    ):
        prepare(root, tmp_path / "out", progress=False)
