"""An exported model gives the Predictor's results in its own engine, and its metadata describe how to use it."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import openvino
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import CLASSES, draw_car
from twincar import Predictor
from twincar.cli import app
from twincar.config import CHECKOUT
from twincar.features.transforms import squash
from twincar.modeling.hub import model_folder
from twincar.modeling.publishing import export

EXAMPLE = CHECKOUT / "docs" / "onnx_example.py"
FILES = {"onnx": "car.onnx", "openvino": "car.xml", "torchscript": "car.pt"}


def twincar(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory):
    """The tiny model with mirror images, a calibration and its own mean and standard deviation."""
    model = model_folder.load(tiny_model)
    model.config["input"] = {"size": 64, "flip": True, "mean": [0.5, 0.4, 0.3], "std": [0.25, 0.25, 0.25]}
    model.config |= {"calibration": {"temperature": 0.5, "slope": 0.8, "intercept": 0.3}, "notice": "Not for sale."}
    return model_folder.save(model, tmp_path_factory.mktemp("export") / "model")


@pytest.fixture(
    scope="module",
    params=["onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("openvino", "torchscript"))],
)
def exported(request, model, tmp_path_factory) -> tuple[str, Path]:
    file = tmp_path_factory.mktemp("file") / FILES[request.param]
    done = twincar("export", "--model", model, "--to", request.param, "--out", file)
    assert done.exit_code == 0, done.output
    assert "on 3 pictures the probabilities differ by" in done.output
    assert "NOT" not in done.output
    return request.param, file


def run(engine: str, file: Path, images: np.ndarray) -> tuple[np.ndarray, np.ndarray, dict[str, str]]:
    """(features, logits, metadata), from the engine's own library."""
    if engine == "onnx":
        session = onnxruntime.InferenceSession(file)
        features, logits = session.run(["features", "logits"], {"images": images})
        return features, logits, session.get_modelmeta().custom_metadata_map
    if engine == "openvino":
        network = openvino.Core().read_model(file)
        about = {key: network.get_rt_info(["twincar", key]).astype(str) for key in ("class_names", "size", "notice")}
        answer = openvino.compile_model(network, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)
        return answer["features"], answer["logits"], about
    about = dict.fromkeys(("class_names", "size", "notice"), "")
    network = torch.jit.load(file, _extra_files=about)
    features, logits = network(torch.from_numpy(images))
    return features.numpy(), logits.numpy(), {key: value.decode() for key, value in about.items()}


@pytest.mark.parametrize("count", [1, 4])
def test_it_gives_the_results_of_the_predictor(exported, model, count):
    predictor = Predictor.from_pretrained(model)
    photos = [draw_car(label) for label in range(count)]
    features, logits, about = run(*exported, np.stack([squash(photo, 64) for photo in photos]))
    assert json.loads(about["class_names"]) == CLASSES
    assert json.loads(about["size"]) == 64
    assert json.loads(about["notice"]) == "Not for sale."
    assert features.shape == (count, 512, 2, 2)
    for photo, row in zip(photos, torch.from_numpy(np.array(logits)).softmax(1), strict=True):
        np.testing.assert_allclose(row, predictor(photo).probabilities, atol=1e-4)


def test_the_example_needs_no_torch(exported, model, car_photo, tmp_path):
    engine, file = exported
    if engine != "onnx":
        pytest.skip("The example is for ONNX Runtime.")
    assert len(EXAMPLE.read_text().splitlines()) <= 30
    for blocked in ("torch", "twincar"):  # imported instead of the real ones
        (tmp_path / f"{blocked}.py").write_text(f"raise SystemExit('the example imports {blocked}')")
    command = [sys.executable, EXAMPLE, file, car_photo]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0, done.stderr
    truth = Predictor.from_pretrained(model)(car_photo).top(5)
    assert done.stdout.splitlines() == [f"{guess.probability:6.1%}  {guess.class_name}" for guess in truth]


def test_an_export_with_other_results_is_not_kept(tiny_model, tmp_path, monkeypatch):
    file = tmp_path / "car.pt"
    file.write_text("the last good one")
    wrong = (("mean", (0.5, 0.5, 0.5)), ("std", (0.2, 0.2, 0.2)))  # the graph's, not the Predictor's
    monkeypatch.setattr(export, "STATISTICS", wrong)
    done = twincar("export", "--model", tiny_model, "--to", "torchscript", "--out", file)
    assert done.exit_code == 2
    assert "the file was not kept" in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["car.pt"]
    assert file.read_text() == "the last good one"


def test_refusals_are_one_sentence(model, tmp_path, monkeypatch):
    for words, message in (
        (("--to", "onnx", "--out", tmp_path / "car.pt"), "does not end in .onnx"),
        (("--to", "onnx", "--model", tmp_path), "is empty"),
    ):
        done = twincar("export", "--model", model, *words)
        assert done.exit_code == 2
        assert message in done.output
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    done = twincar("export", "--model", model, "--to", "onnx", "--out", tmp_path / "car.onnx")
    assert done.exit_code == 2
    assert "pip install 'twincar[export]'" in done.output
    assert list(tmp_path.iterdir()) == []


def test_a_picture_of_another_size_is_refused_by_the_graph(exported):
    if exported[0] == "torchscript":
        pytest.skip("TorchScript keeps no shapes.")
    with pytest.raises(Exception, match=r"(?i)dimension|shape|size|sizes"):
        run(*exported, np.asarray(Image.new("RGB", (80, 80)))[None])
