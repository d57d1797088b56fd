"""`prepare`: the split, near-duplicates, rejected pictures, and error messages."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.model_selection import train_test_split

from tests.conftest import (
    THREE,
    by_class,
    official,
    picture_bytes,
    put,
)
from tests.helpers.prepared import names_of, rejected, run
from twincar.data.table import DataError, class_names, load_table, prepare, stratified_split

# The split -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("val_size", [0.1, 0.15, 0.3])
@pytest.mark.parametrize("seed", [42, 7])
def test_split_equals_sklearns_on_a_set_like_stanford_cars(val_size, seed):
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


# Near-duplicates ----------------------------------------------------------------------------------------------------


def shades(seed: int) -> Image.Image:
    """A picture of large soft patches that differs from every other seed's."""
    patches = np.random.default_rng(seed).integers(0, 255, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(patches).resize((160, 120), Image.Resampling.BICUBIC)


def test_a_photo_in_two_splits_or_under_two_names_is_reported(tmp_path):
    """Re-encoded, resized, cropped by two pixels. Other photos and pictures of a single tone are not reported."""
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
    assert (
        "2 photos found more than once (2 of them in train/test; 2 under different class names): see"
        in summary.describe()
    )


def test_without_copies_nothing_is_reported(tmp_path):
    for seed in range(4):
        put(tmp_path / "cars" / "ab"[seed % 2] / f"{seed}.jpg", picture_bytes(seed=seed))
    summary, _ = run(tmp_path / "cars", tmp_path / "out")
    assert pd.read_csv(tmp_path / "out/duplicates.csv").empty
    assert "more than once" not in summary.describe()


# Rejected ------------------------------------------------------------------------------------------------------------


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
    put(root / "train/a/sound.png", picture_bytes((128, 16), "PNG"))  # at the limit of the aspect ratio
    monkeypatch.setattr("twincar.features.photo.MAX_PIXELS", 100_000)
    summary, table = run(root, tmp_path / "out")
    reasons = rejected(tmp_path / "out")
    assert set(reasons) == set(bad)
    assert {n for n, r in reasons.items() if r.startswith("misshapen: ")} == {"long.jpg"}
    assert "only 100 by 15 pixels" in reasons["flat.jpg"]
    assert reasons["text.jpg"] == "unreadable: not a picture"
    assert "truncated" in reasons["cut.jpg"] and "megapixels" in reasons["bomb.png"]
    assert summary.rejected == {"unreadable": 6, "misshapen": 1} and len(table) == 21
    assert "7 pictures rejected (6 unreadable, 1 misshapen)" in summary.describe()


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


# Errors and load_table ------------------------------------------------------------------------------------------------


def test_invalid_sources(tmp_path):
    put(tmp_path / "cars.zip", b"PK")
    put(tmp_path / "flat/1.jpg"), put(tmp_path / "flat/2.jpg")
    (tmp_path / "bad/cars_train").mkdir(parents=True)
    put(tmp_path / "bad/cars_train/00001.jpg"), put(tmp_path / "bad/devkit/cars_train_annos.mat", b"<html>")
    for name, message in (
        ("nowhere", "There is no .*nowhere: give a folder"),
        ("cars.zip", "unpack archives first"),
        ("flat", "No cars were found .*cars_train/.*train/<class>/.*parquet"),
        ("bad", "cannot be read as a MATLAB file"),
    ):
        with pytest.raises(DataError, match=message):
            prepare(tmp_path / name, tmp_path / "out", progress=False)
    with pytest.raises(DataError, match="val_size is 1"):
        prepare(tmp_path / "flat", tmp_path / "out", val_size=1, progress=False)
    put(tmp_path / "file")
    with pytest.raises(DataError, match="cannot be written"):
        prepare(by_class(tmp_path / "cars", ["a", "b"]), tmp_path / "file", progress=False)


def test_load_table_errors(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        load_table("data")
    assert str(caught.value) == "There is no data/cars.csv: run `twincar prepare SOURCE --out data` first."
    by_class(tmp_path / "cars", ["a", "b"])
    run("cars", "data")
    good = Path("data/cars.csv").read_text()
    for corrupted, message in (
        ("", "cannot be read"),
        (good.splitlines()[0] + "\n", "has no rows"),
        (good.replace("label,", "lable,", 1), "has no column label"),
        (good.replace(",train", ",dev", 1), "has the split 'dev'"),
        (good.replace(",0,a", ",zero,a", 1), "text instead of a number"),
    ):
        Path("data/cars.csv").write_text(corrupted)
        with pytest.raises(DataError, match=message):
            load_table("data")


def test_class_names_of_an_inconsistent_table(tmp_path):
    by_class(tmp_path / "cars", ["a", "b"])
    _, table = run(tmp_path / "cars", tmp_path / "out")
    with pytest.raises(DataError, match="one class name each"):
        class_names(table.assign(label=0))


def test_a_failed_run_keeps_the_old_table(tmp_path, monkeypatch):
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
