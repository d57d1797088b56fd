"""A trunk in 8 bits: written by the command line, used by the engine, only with its own network and not at any loss."""

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.conftest import draw_car
from twincar import Predictor
from twincar.cli import app
from twincar.dataset import prepare
from twincar.modeling import hub, quantise
from twincar.modeling.engine import EngineError

pytest.importorskip("nncf")


def twincar(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "400", "TERM": "dumb"})


@pytest.fixture(scope="module")
def data(car_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(car_folders, folder, val_size=0.25, progress=False)
    return folder


@pytest.fixture(scope="module")
def model(data, tmp_path_factory):
    names = ["Citroen 2CV Sedan 1948", "Lada Niva SUV 1977", "Trabant 601 Sedan 1964"]
    config = {"architecture": {"name": "resnet18", "head": "linear"}, "class_names": names, "input": {"size": 64}}
    return hub.save(hub.CarModel(config), tmp_path_factory.mktemp("model") / "model")


def test_it_is_measured_kept_and_answers_nearly_the_same(model, tiny_model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(quantise, "MOST_LOST", 1.0)  # of random weights
    file = tmp_path / "car-int8.xml"
    done = twincar("export", "--to", "int8", "--model", model, "--data", data, "--out", file)
    assert done.exit_code == 0, done.output
    assert "on 6 val pictures" in done.output
    assert {path.name for path in tmp_path.iterdir()} == {"car-int8.xml", "car-int8.bin"}
    assert file.with_suffix(".bin").stat().st_size < 13e6  # of 45 in single precision
    fast, truth = (Predictor.from_pretrained(model, engine=name) for name in (f"openvino:{file}", "torch"))
    photo = draw_car(1)
    np.testing.assert_allclose(fast(photo).probabilities, truth(photo).probabilities, atol=0.1)
    with pytest.raises(EngineError, match="quantised from other weights"):
        Predictor.from_pretrained(tiny_model, engine=f"openvino:{file}")
    with pytest.raises(EngineError, match="no quantised network"):
        Predictor.from_pretrained(model, engine=f"openvino:{tmp_path / 'nothing.xml'}")


def test_what_loses_too_much_is_not_kept(model, data, tmp_path, monkeypatch):
    monkeypatch.setattr(quantise, "MOST_LOST", -1.1)
    file = tmp_path / "car-int8.xml"
    done = twincar("export", "--to", "int8", "--model", model, "--data", data, "--out", file)
    assert done.exit_code == 2
    assert "it was not kept" in done.output
    assert not list(tmp_path.iterdir())
