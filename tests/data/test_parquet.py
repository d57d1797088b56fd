"""`prepare` with parquet files: in a folder, and on the Hub (its real client, a local server)."""

import json
import os
import socket
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import (
    RAM,
    THREE,
    by_class,
    picture_bytes,
    put,
)
from tests.helpers.prepared import names_of, run
from twincar.config import STANFORD_CARS
from twincar.data.listing import folder_name
from twincar.data.table import DataError, class_names, prepare

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
    parquet(tmp_path / "hub/data/contrast-00000-of-00001.parquet", [0, 1, 2])  # test pictures, corrupted
    summary, table = run(tmp_path / "hub", tmp_path / "out")
    assert summary.splits == {"train": 27, "val": 3, "test": 3, "holdout": 0}
    assert "1 parquet file of other splits left out (contrast-" in summary.describe()
    assert class_names(table) == STANFORD_CARS and set(table["class_name"]) == set(THREE)
    _, plain = run(by_class(tmp_path / "folders", THREE), tmp_path / "plain")
    assert names_of(table, "val") == names_of(plain, "val")
    second = tmp_path / "out/pictures/train" / folder_name(RAM) / "00002.jpg"
    assert second.read_bytes() == picture_bytes(seed=2)  # unchanged
    assert "pictures/train/AM General Hummer SUV 2000/00001.jpg" in set(pd.read_csv(tmp_path / "out/cars.csv")["path"])


def test_a_killed_parquet_run_resumes(tmp_path):
    file = parquet(tmp_path / "cars.parquet", [0, 1, 2] * 4)
    summary, first = run(file, tmp_path / "out")
    assert summary.splits["test"] == 0 and len(first) == 12  # no split named: all train
    kept, cut = Path(first["path"][0]), Path(first["path"][1])
    os.utime(kept, (1, 1))
    whole = cut.read_bytes()
    cut.write_bytes(whole[:100])
    put(cut.with_name("half.jpg.part"), b"")
    (tmp_path / "out/cars.csv").unlink()
    _, again = run(file, tmp_path / "out")
    assert kept.stat().st_mtime == 1 and cut.read_bytes() == whole
    pd.testing.assert_frame_equal(again, first)
    _, same = run(tmp_path, tmp_path / "out")  # pictures written below OUT are not a source
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


def test_numbers_without_names_are_classes_in_numeric_order(tmp_path):
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


# The Hub: the real client, a local server -----------------------------------------------------------------------------


def test_hub_dataset(tmp_path, hub):
    endpoint, served = hub.url, hub.root
    data = served / "someone/stanford_cars/data"
    parquet(data / "train-00000-of-00001.parquet", [0, 1, 2] * 10)
    parquet(data / "test-00000-of-00001.parquet", [0, 1, 2])
    put(data / "fog-00000-of-00001.parquet", b"not downloaded")
    put(served / "someone/stanford_cars/README.md", b"# cars")
    summary, table = run("someone/stanford_cars", tmp_path / "out", endpoint=endpoint)
    assert summary.layout == "Hub dataset someone/stanford_cars"
    assert summary.splits == {"train": 27, "val": 3, "test": 3, "holdout": 0}
    assert class_names(table) == STANFORD_CARS
    assert not list((tmp_path / "cache").rglob("fog*"))


@pytest.mark.parametrize("why", ["offline", "unreachable", "server error"])
def test_a_hub_dataset_in_the_cache_is_used_without_the_hub(tmp_path, hub, monkeypatch, caplog, why):
    parquet(hub.root / "someone/cars/data/train-00000-of-00002.parquet", [0, 1, 2] * 5)
    parquet(hub.root / "someone/cars/data/train-00001-of-00002.parquet", [0, 1, 2] * 5)
    _, before = run("someone/cars", tmp_path / "out", endpoint=hub.url)
    endpoint = hub.url
    if why == "offline":
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    elif why == "unreachable":
        endpoint = "http://127.0.0.1:9"
    else:
        hub.fail("", 503)
        monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.requests.clear()
    _, after = run("someone/cars", tmp_path / "again", endpoint=endpoint)
    assert list(after["class_name"]) == list(before["class_name"])
    assert bool(hub.requests) == (why == "server error")
    assert [record.getMessage().partition(":")[0] for record in caplog.records] == (
        [] if why == "offline" else ["The Hub cannot be reached"]
    )
    next((tmp_path / "cache").glob("*/snapshots/*/data/train-00001-of-00002.parquet")).unlink()
    with pytest.raises(DataError, match="only 1 of 2 parquet files of train are in the local cache"):
        prepare("someone/cars", tmp_path / "third", endpoint=endpoint, progress=False)


def test_hub_errors(tmp_path, hub):
    endpoint, served = hub.url, hub.root
    put(served / "someone/texts/README.md", b"no pictures")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    for source, at, message in (
        ("someone/nothing", endpoint, "neither a folder someone/nothing here nor a dataset of that name"),
        ("someone/gated", endpoint, "accept its terms"),
        ("someone/texts", endpoint, "holds no .parquet files"),
        ("someone/cars", nobody, "could not be downloaded"),
    ):
        with pytest.raises(DataError, match=message) as caught:
            prepare(source, tmp_path / "out", endpoint=at, progress=False)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()
