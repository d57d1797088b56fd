"""`prepare` with folders that are nested, empty, left by systems or in other formats: read, counted or refused."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from tests.conftest import HUMMER, JPEG, RAM, THREE, annotations, by_class, official, picture_bytes, put
from tests.helpers.hostile_files import heic
from tests.helpers.prepared import names_of, rejected, run
from twincar.cli import app
from twincar.config import FORMATS, IMAGE_SUFFIXES, STANFORD_CARS
from twincar.data.table import DataError, class_names, prepare


def tree(root: Path, folders: str) -> Path:
    """Folders with three pictures each, or as many as are named: "Audi/A4 Audi/A6:5"."""
    for i, folder in enumerate(folders.split("  ")):
        name, _, n = folder.partition(":")
        for j in range(int(n or 3)):
            put(root / name / f"{i}-{j}.jpg")
    return root


# Which folders are classes ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("folders", "classes"),
    [
        ("Audi/A4  Audi/A6  BMW/M3  BMW/X5", ["Audi A4", "Audi A6", "BMW M3", "BMW X5"]),
        ("Audi/A4  Audi/A6", ["Audi A4", "Audi A6"]),  # one make is no wrapper
        ("car_data/car_data/a  car_data/car_data/b", ["a", "b"]),
        ("Audi/A4/2011  Audi/A4/2012  BMW/M3/2011", ["Audi A4 2011", "Audi A4 2012", "BMW M3 2011"]),
        ("Audi A4/2011  BMW M3/2011", ["Audi A4 2011", "BMW M3 2011"]),
        ("DVM/Audi/A4/2011/Red  DVM/Audi/A4/2011/Blue  DVM/BMW/M3/2012/Red", ["Audi A4 2011", "BMW M3 2012"]),
        ("78/2003/2010  78/2003/2011  9/1990/2012", ["78 2003 2010", "78 2003 2011", "9 1990 2012"]),  # CompCars
        ("train/Audi/A4  train/BMW/M3  test/Audi/A4", ["Audi A4", "BMW M3"]),
        ("Audi/train/A4  Audi/test/A4  BMW/train/M3", ["Audi A4", "BMW M3"]),
        ("Audi A4/train  Audi A4/test  BMW M3/train", ["Audi A4", "BMW M3"]),
        ("Train_set/a  Train_set/b  Test-images/a", ["a", "b"]),
        ("a/photos  b/photos", ["a", "b"]),
        ("a/front  a/rear  b", ["a", "b"]),
        ("a/x  b/x  c/x", ["a", "b", "c"]),
        ("a  b/inner  c/c", ["a", "b", "c"]),
        ("Audi/Sedan  BMW/Sedan", ["Audi Sedan", "BMW Sedan"]),
        ("a:5  a/more/still more:2  b", ["a", "b"]),
        ("Audi/images/A4  Audi/images/A6  BMW/images/M3", ["Audi A4", "Audi A6", "BMW M3"]),
        ("Ram C/V Cargo Van Minivan 2012  AM General Hummer SUV 2000", [HUMMER, RAM]),
        ("cars/Acura RL Sedan 2012/2019  cars/Audi/Audi A5 Coupe 2012", ["Acura RL Sedan 2012", "Audi A5 Coupe 2012"]),
        ("AM General/Hummer/SUV/2000  Ram/C-V/Cargo Van Minivan/2012", [HUMMER, RAM]),
        ("train  car", ["car"]),  # a train is no class: the folder counts as the split's, and one class as none
    ],
)
def test_class_folders(tmp_path, folders, classes):
    root = tree(tmp_path / "cars", folders)
    if len(classes) < 2:
        with pytest.raises(DataError, match=r"No cars were found .*; found 3 pictures in car/, 3 pictures in train/"):
            prepare(root, tmp_path / "out", progress=False)
        return
    summary, table = run(root, tmp_path / "out")
    assert sorted(set(table["class_name"])) == sorted(classes)
    assert len(table) == len(list(root.rglob("*.jpg"))) and not summary.unused
    joined = all("/" not in each.removeprefix("car_data/car_data/") for each in folders.split("  "))
    assert joined or "left out" not in summary.describe()


def test_joined_names_are_shown(tmp_path):
    summary, table = run(tree(tmp_path / "cars", "Audi/A4  BMW/M3"), tmp_path / "out")
    assert "Class names are made of nested folders, such as Audi A4 from Audi/A4/." in summary.describe()
    assert set(table["make"]) == {"Audi", "BMW"} and set(table["model"]) == {"A4", "M3"}


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (
            "figures  cars/a  cars/b",
            "at different depths, such as figures/ and cars/a/: name the folder that holds one",
        ),
        ("train/images:4  valid/images:2", "found 4 pictures in train/images/, 2 pictures in valid/images/"),
        ("train:4  test:2", "found 2 pictures in test/, 4 pictures in train/"),
        ("cars", "found 3 pictures in cars/"),
    ],
)
def test_what_was_seen_is_in_a_refusal(tmp_path, folders, message):
    with pytest.raises(DataError, match=message) as caught:
        prepare(tree(tmp_path / "source", folders), tmp_path / "out", progress=False)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "labels"),
    [("train/images", "train/labels"), ("images/train", "labels/train"), ("JPEGImages", "Annotations")],
)
def test_a_detection_export_is_refused_in_one_sentence(tmp_path, images, labels):
    root = tree(tmp_path / "export", images)
    put(root / labels / "0-0.txt", b"0 0.5 0.5 1 1\n")
    put(root / "data.yaml", b"names: [car]\n")
    done = CliRunner().invoke(app, ["prepare", str(root), "--out", str(tmp_path / "out")], env={"COLUMNS": "300"})
    assert done.exit_code == 2
    assert "this is a dataset for detection, without classes; sort the pictures" in done.output.replace("\n", " ")
    assert not (tmp_path / "out").exists()


# What is not used --------------------------------------------------------------------------------------------------

SYSTEMS = ["@eaDir", "lost+found", "__MACOSX", ".thumbnails", "$RECYCLE.BIN", "#recycle", "System Volume Information"]


@pytest.mark.parametrize("inside", ["", "train/a"])
def test_folders_of_systems_are_no_classes_and_counted(tmp_path, inside):
    root = by_class(tmp_path / "cars", ["a", "b"], n=3)
    for name in SYSTEMS:
        put(root / inside / name / "x.jpg")
    put(root / "train/a/Thumbs.db", b"")
    summary, table = run(root, tmp_path / "out")
    assert class_names(table) == ("a", "b") and len(table) == 6
    assert sorted(summary.unused) == sorted((f"{name}/", "system folder", 1) for name in SYSTEMS)
    assert "7 pictures not used: 1 in " in summary.describe()


def test_every_picture_is_in_the_table_rejected_or_counted(tmp_path):
    root = by_class(tmp_path / "cars", ["a", "b"], n=3)
    put(root / "cover.jpg"), put(root / "train/cover.jpg"), put(root / "figures/1.png"), put(root / "figures/2.png")
    put(root / "train/a/IMG_1.DNG", b""), put(root / "crops/crop.json"), put(root / "crops/train/a/1.jpg")
    put(root / "train/b/broken.jpg", b"")
    for i in range(20):
        put(root / f"unrelated/{i}/x.jpg")
    summary, table = run(root, tmp_path / "out")
    assert len(table) == 6 and sum(summary.rejected.values()) == 1
    assert {
        ("the source itself", "not in a class folder", 1),
        ("train/", "not in a class folder", 1),
        ("figures/", "not in a class folder", 2),
        ("train/a/", ".dng is not read", 1),
        ("crops/train/a/", "crops that `twincar crop` wrote", 1),
    } < set(summary.unused)
    assert sum(n for *_, n in summary.unused) == 26
    assert "26 pictures not used: 2 in figures/ (not in a class folder), " in summary.describe()
    assert "in 19 other folders." in summary.describe()


def test_empty_class_folders_and_classes_in_val_alone_get_a_note(tmp_path):
    root = by_class(tmp_path / "cars", ["a", "b"], n=3)
    by_class(root, ["a", "c"], n=1, split="val")
    (root / "train/empty").mkdir(), put(root / "train/raw only/1.CR2", b""), put(root / "train/bare/000001", JPEG)
    put(root / "devkit/README.txt", b"")  # no class
    summary, _ = run(root, tmp_path / "out")
    text = summary.describe()
    assert (
        "3 folders without a readable picture left out: train/bare/ (1 ''), train/empty/, train/raw only/ (1 .cr2)."
        in text
    )
    assert "1 class without a training picture: c." in text


def test_one_class_gets_a_note(tmp_path):
    summary, _ = run(by_class(tmp_path / "cars", ["a"], n=3), tmp_path / "out")
    assert "There is one class only: training needs two or more." in summary.describe()


def test_links_in_a_circle_end_and_links_to_classes_are_read(tmp_path):
    root = tree(tmp_path / "cars", "a  b")
    (root / "a/again").symlink_to(root)
    (root / "c").symlink_to(tree(tmp_path, "elsewhere") / "elsewhere")
    _, table = run(root, tmp_path / "out")
    assert class_names(table) == ("a", "b", "c")


# Formats ------------------------------------------------------------------------------------------------------------


def test_the_list_of_suffixes_is_that_of_the_decoders():
    import twincar.features.photo  # noqa: F401 (registers HEIF)

    registered = Image.registered_extensions()
    expected = {s for s, kind in registered.items() if kind in FORMATS} | {".mpo"}  # JPEGs of 3-D cameras
    assert expected == IMAGE_SUFFIXES
    assert all(registered[s] == kind for kind, suffixes in FORMATS.items() for s in suffixes if s != ".mpo")


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_suffix_is_read_by_prepare_and_predict(tmp_path, suffix):
    """Small pictures are enough; what `prepare` accepts, `cache` and `predict` read with the same function."""
    from twincar.batch.results import find_photos
    from twincar.features.photo import load_photo

    kind = next(kind for kind, suffixes in FORMATS.items() if suffix in suffixes)
    image = Image.open(io.BytesIO(picture_bytes((90, 60))))
    data = heic(image) if kind == "HEIF" else picture_bytes((90, 60), kind)
    for name in ("a", "b"):
        put(tmp_path / f"cars/{name}/x{suffix.upper()}", data)
    summary, table = run(tmp_path / "cars", tmp_path / "out")
    assert len(table) == 2 and not summary.unused
    assert list(map(str, find_photos([tmp_path / "cars"]))) == table["path"].tolist()
    assert load_photo(table["path"][0]).size == (90, 60)


def test_prepare_and_predict_agree_about_odd_files(tmp_path):
    from twincar.features.photo import PhotoError, load_photo

    scan = b"\xff\xda\x00\x08\x01\x01\x00\x00?\x00\x00"
    odd = {
        "heic inside": heic(Image.open(io.BytesIO(JPEG))),
        "scans": JPEG[:-2] + scan * 200 + b"\xff\xd9",
        "cut": picture_bytes((300, 200))[:5000],
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 90 90\n",
        "icon": picture_bytes((64, 64), "ICO"),
        "16 bits": picture_bytes((64, 64), "TIFF"),
        "small": picture_bytes((15, 40)),
        "empty": b"",
    }
    for name, data in odd.items():
        put(tmp_path / f"cars/a/{name}.jpg", data)
    put(tmp_path / "cars/b/good.jpg")
    run(tmp_path / "cars", tmp_path / "out")
    reasons, unreadable = rejected(tmp_path / "out"), set()
    for name in odd:
        try:
            load_photo(tmp_path / f"cars/a/{name}.jpg")
        except PhotoError:
            unreadable.add(f"{name}.jpg")
    assert set(reasons) == unreadable == {f"{name}.jpg" for name in ("scans", "cut", "eps", "icon", "small", "empty")}


# Names ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spell",
    [
        lambda name: f"{name[-4:]} {name[:-5]}",
        lambda name: f"0001 {name}",
        lambda name: f"7.{name}",
        lambda name: name.lower().replace(" ", "_"),
        lambda name: name.replace(" ", "-"),
        lambda name: name.replace(" ", "$$"),
        lambda name: f"0012_{name[-4:]}_{name[:-5].upper()}",
    ],
)
def test_the_196_are_recognized_in_every_spelling(tmp_path, spell):
    root = by_class(tmp_path / "cars", [spell(name) for name in THREE], n=3)
    by_class(root, THREE, n=1, split="test", start=100)
    summary, table = run(root, tmp_path / "out")
    assert summary.is_stanford_cars and set(table["class_name"]) == set(THREE)
    assert class_names(table) == STANFORD_CARS
    assert set(table["make"]) == {"AM General", "Ram", "smart"}


def test_one_class_never_becomes_two(tmp_path):
    names = ["Citroe\u0308n 2CV Sedan 1948", "lada_niva_suv_1977"]
    root = by_class(tmp_path / "cars", names, n=3)
    by_class(root, ["Citro\u00ebn 2CV Sedan 1948", "Lada Niva SUV 1977"], n=1, split="test", start=100)
    summary, table = run(root, tmp_path / "out")
    assert class_names(table) == ("Citro\u00ebn 2CV Sedan 1948", "lada_niva_suv_1977")
    assert set(table["make"]) == {"Citro\u00ebn", "lada"} and set(table["year"]) == {1948, 1977}
    assert "2 classes written in several ways, read as one each: " in summary.describe()


# Other official layouts -----------------------------------------------------------------------------------------------


def car_ims(root: Path, tests=3, folder="car_ims") -> Path:
    files = [f"{i:06d}.jpg" for i in range(1, 31)]
    found = annotations(files, [STANFORD_CARS.index(THREE[i % 3]) + 1 for i in range(30)])["annotations"]
    rows = [(f"car_ims/{row[-1]}", *tuple(row)[:-1], int(i < tests)) for i, row in enumerate(found)]
    columns = ["relative_im_path", *found.dtype.names[:-1], "test"]
    content = {"annotations": np.array(rows, dtype=[(name, object) for name in columns])}
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "cars_annos.mat", content | {"class_names": np.array(STANFORD_CARS, dtype=object)})
    for file in files:
        put(root / folder / file)
    return root


def test_car_ims_with_one_table_of_annotations(tmp_path):
    root = car_ims(tmp_path / "cars")
    put(root / "car_ims/000999.jpg")
    summary, table = run(root, tmp_path / "out")
    assert summary.splits == {"train": 24, "val": 3, "test": 3, "holdout": 0} and summary.boxes == 30
    assert names_of(table, "test") == {"000001.jpg", "000002.jpg", "000003.jpg"}
    assert class_names(table) == STANFORD_CARS and set(table["class_name"]) == set(THREE)
    assert (table[["x1", "y1", "x2", "y2"]] == [1, 2, 50, 30]).all(axis=None)
    assert summary.unused == (("car_ims/", "without annotation", 1),)


def test_annotations_of_car_ims_are_not_used_for_cars_train(tmp_path):
    """Kaggle's mix: cars_annos.mat numbers other pictures than the five-digit cars_train/."""
    root = car_ims(tmp_path / "cars", folder="unused")
    for i in range(1, 4):
        put(root / f"cars_train/cars_train/{i:05d}.jpg"), put(root / f"cars_test/cars_test/{i:05d}.jpg")
    for file in (root / "unused").iterdir():
        file.unlink()
    with pytest.raises(
        DataError, match=r"cars_annos\.mat, which numbers the pictures of car_ims/ .* add cars_train_annos"
    ):
        prepare(root, tmp_path / "out", progress=False)


@pytest.mark.parametrize("name", ["withlabels (1)", "withlabels(2)", "withlabels - Copy"])
def test_labels_under_the_name_of_a_second_download(tmp_path, name):
    root = official(tmp_path / "cars")
    put(root / "cars_test/00001.jpg")
    savemat(root / "devkit/cars_test_annos.mat", annotations(["00001.jpg"]))
    savemat(root / f"cars_test_annos_{name}.mat", annotations(["00001.jpg"], [196]))
    _, table = run(root, tmp_path / "out")
    assert table[table["split"] == "test"]["label"].tolist() == [195]


# Archives and arrow ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("members", "message"),
    [(["0.jpg", "0.cls"], "is a shard of webdataset; convert the shards"), (["a/0.jpg"], "unpack archives first")],
)
@pytest.mark.parametrize("as_folder", [True, False])
def test_tars_are_named_in_the_refusal(tmp_path, members, message, as_folder):
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards/cars-000000.tar", "w") as archive:
        for name in members:
            archive.addfile(tarfile.TarInfo(name))
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / ("shards" if as_folder else "shards/cars-000000.tar"), tmp_path / "out", progress=False)


def test_a_dataset_saved_to_disk_is_read(tmp_path):
    """The files of `datasets.save_to_disk`, one picture of which is outside."""
    features = {"image": {"_type": "Image"}, "label": {"names": THREE, "_type": "ClassLabel"}}
    outside = put(tmp_path / "photos/outside.png", picture_bytes(kind="PNG"))
    for split, n in (("train", 40), ("test", 2)):
        images = [{"bytes": picture_bytes(seed=i), "path": f"{i}.jpg"} for i in range(n)]
        images[0] = {"bytes": None, "path": str(outside)}
        table = pa.table({"image": images, "label": [i % 3 for i in range(n)]})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        folder = tmp_path / "saved" / split
        folder.mkdir(parents=True)
        for name in ("data-00000-of-00001.arrow", "cache-123.arrow"):
            with pa.OSFile(str(folder / name), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as stream:
                stream.write_table(table)
        put(folder / "state.json", b"{}")
    summary, table = run(tmp_path / "saved", tmp_path / "out")
    assert summary.splits == {"train": 36, "val": 4, "test": 2, "holdout": 0} and not summary.rejected
    assert class_names(table) == STANFORD_CARS
    assert table["path"].tolist().count(str(outside)) == 2
