"""Model folders from before 0.2.0, with detector and open-set data in one file, still load, without the detector."""

import json
import shutil

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from tests.conftest import CLASSES, draw_car
from tests.helpers.configs import config_of
from twincar import Predictor
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.download import LEGACY_ENTRY, LEGACY_FILE, PARTS, sha256
from twincar.modeling.hub.model_folder import ModelError
from twincar.modeling.open_set.open_set import OpenSet, Threshold
from twincar.modeling.publishing import push_pull


@pytest.fixture(scope="module")
def new(tiny_model, tmp_path_factory):
    """A folder in the current layout, with random open-set data."""
    torch.manual_seed(0)
    model = model_folder.load(tiny_model)
    width, count = model.network.width, len(CLASSES)
    confusion = torch.randint(9, (count, count))
    thresholds = Threshold(-100.0, 0.05), Threshold(-100.0, 0.05)
    model.open_set = OpenSet(torch.randn(width), 0.5, torch.randn(count, width), confusion, *thresholds, "max")
    model.config["open_set"] = {"not_cars": 24, "scenes": 96, "false_alarms": 0.05}
    return model_folder.save(model, tmp_path_factory.mktemp("new") / "model")


@pytest.fixture
def old(new, tmp_path):
    """The same model in the old layout."""
    folder = shutil.copytree(new, tmp_path / "old")
    open_set = folder / PARTS["open_set"]
    with safe_open(open_set, "pt") as file:
        metadata = file.metadata()
    del metadata["pooling"]  # always of the maxima then
    tensors = load_file(open_set) | {"locator.scale": torch.ones(())}
    save_file(tensors, folder / LEGACY_FILE, metadata=metadata)
    config = config_of(folder)
    entry = config.pop("open_set")
    entry |= {"composed": entry.pop("scenes"), "sha256": sha256(folder / LEGACY_FILE)}
    (folder / "config.json").write_text(json.dumps(config | {LEGACY_ENTRY: entry}))
    open_set.unlink()
    return folder


def check_equal(name, new) -> Predictor:
    """Check that a model gives the answers of the model in the folder `new`."""
    photo = draw_car(1, size=(320, 240))
    predictor, expected = Predictor.from_pretrained(name), Predictor.from_pretrained(new)
    one, other = predictor(photo), expected(photo)
    assert np.array_equal(one.probabilities, other.probabilities)
    assert one.energy == other.energy
    assert one.car_score == pytest.approx(other.car_score)  # a dot product: its rounding depends on memory alignment
    assert one.is_car and one.is_known
    assert one.similar_classes(CLASSES[0]) == other.similar_classes(CLASSES[0])
    return predictor


def test_an_old_folder_gives_the_same_answers(old, new, caplog):
    assert check_equal(old, new).detector is None
    assert "run `twincar fit-detector` to fit a new one" in caplog.text


def test_saving_writes_the_current_layout(old, new, tmp_path):
    folder = model_folder.save(model_folder.load(old), tmp_path / "saved")
    assert {file.name for file in folder.iterdir()} == {file.name for file in new.iterdir()}
    for file in ("model.safetensors", PARTS["open_set"]):
        saved, expected = load_file(folder / file), load_file(new / file)
        assert saved.keys() == expected.keys() and all(saved[key].equal(expected[key]) for key in saved)
    configs = [config_of(path) for path in (folder, new)]
    for config in configs:  # safetensors writes metadata in any order
        del config["open_set"]["sha256"]
    assert configs[0] == configs[1]
    assert (folder / "README.md").read_text() == (new / "README.md").read_text()
    check_equal(folder, new)


def test_from_the_hub_and_back(old, new, hub, tmp_path, monkeypatch):
    repo = shutil.copytree(old, hub.root / "someone" / "cars")
    assert LEGACY_FILE in push_pull.collect_files(old, "someone/cars")
    check_equal("someone/cars", new)
    assert check_equal(push_pull.pull("someone/cars", tmp_path / "pulled"), new).config == model_folder.load(old).config
    (repo / LEGACY_FILE).write_bytes(b"damaged")
    with pytest.raises(ModelError, match="do not match its config"):
        Predictor.from_pretrained("someone/cars")


def test_unused_files_are_not_uploaded(old):
    (old / PARTS["detector"]).write_bytes(b"left over")
    assert PARTS["detector"] not in push_pull.collect_files(old, "someone/cars")
