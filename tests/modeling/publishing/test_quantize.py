"""A network in 8 bits: its ranges are measured by the command line, kept in the model, used by the engine where they
are this network's, and not at any loss."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import draw_car
from twincar import Predictor
from twincar.cli import app
from twincar.config import IMAGENET_MEAN, IMAGENET_STD
from twincar.data.table import load_table, prepare
from twincar.features.transforms import squash, to_batch
from twincar.modeling.engines import int8, openvino_engine
from twincar.modeling.engines.backbone import Backbone
from twincar.modeling.engines.base import EngineError
from twincar.modeling.engines.choose import choose
from twincar.modeling.hub import model_folder
from twincar.modeling.networks import architectures
from twincar.modeling.publishing import quantize

NAMES = ["Citroen 2CV Sedan 1948", "Lada Niva SUV 1977", "Trabant 601 Sedan 1964"]


def twincar(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "400", "TERM": "dumb"})


@pytest.fixture(scope="module")
def data(car_folders, tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    prepare(car_folders, folder, val_size=0.25, progress=False)
    return folder


def save_model(folder):
    torch.manual_seed(0)
    config = {"architecture": {"name": "resnet18", "head": "linear"}, "class_names": NAMES, "input": {"size": 64}}
    return model_folder.save(model_folder.CarModel(config).eval(), folder)


@pytest.fixture
def rounded(tmp_path, data, monkeypatch):
    """A folder of a model with random weights and its ranges."""
    monkeypatch.setattr(quantize, "MOST_LOST", 1.0)
    monkeypatch.setattr(quantize, "LEAST_SAME", 0.0)
    folder = save_model(tmp_path / "model")
    done = twincar("quantise", "--model", folder, "--data", data)
    assert done.exit_code == 0, done.output
    assert "on 6 val pictures" in done.output
    return folder


def test_ranges_are_kept_in_the_model_and_answers_are_nearly_the_same(rounded):
    told = json.loads((rounded / "config.json").read_text())["int8"]
    assert told["pictures"] == 6
    assert "layer4.1.conv2" in told["ranges"]
    assert "conv1" not in told["ranges"]  # what reads the picture stays as it is, and what reads the stem
    assert "layer1.0.conv1" not in told["ranges"]
    assert all(low <= 0 < high for low, high in told["ranges"].values())
    assert "## In 8 bits" in (rounded / "README.md").read_text()
    fast, truth = (Predictor.from_pretrained(rounded, engine=name) for name in ("openvino:int8", "torch:f32"))
    assert fast.engine.name == "openvino:int8"
    for seed in range(3):
        photo = draw_car(seed)
        np.testing.assert_allclose(fast(photo).probabilities, truth(photo).probabilities, atol=0.05)
        assert not np.array_equal(fast(photo).probabilities, truth(photo).probabilities)


def test_ranges_of_another_network_are_seen(rounded):
    model = model_folder.load(rounded)
    ranges = model.config["int8"]["ranges"]
    backbone = Backbone(model.network, IMAGENET_MEAN, IMAGENET_STD)
    for wrong in ({"layer9.conv1": (0.0, 1.0)}, {name: (0.0, high / 50) for name, (_, high) in ranges.items()}):
        with pytest.raises(EngineError):
            choose(backbone, 64, "cpu", "openvino:int8", wrong)
        assert choose(backbone, 64, "cpu", "openvino", wrong).name in ("openvino:f32", "openvino:bf16")
    with pytest.raises(EngineError, match="twincar quantise"):
        choose(backbone, 64, "cpu", "openvino:int8")


def test_what_loses_too_much_is_not_kept(tmp_path, data, monkeypatch):
    folder = save_model(tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for name, value in (("MOST_LOST", -1.1), ("LEAST_SAME", 1.1)):
        with monkeypatch.context() as patch:
            patch.setattr(quantize, name, value)
            done = twincar("quantise", "--model", folder, "--data", data)
        assert done.exit_code == 2
        assert "it was not kept" in done.output
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_table_without_training_pictures_is_refused_in_a_sentence(tmp_path, data):
    table = load_table(data)
    with pytest.raises(quantize.TwinCarError, match="no train pictures"):
        quantize.quantize(model_folder.load(save_model(tmp_path / "model")), table[table["split"] == "val"])


@pytest.mark.parametrize("name", ["resnet50", "timm/tf_efficientnet_lite0", "timm/convnext_atto"])
def test_rounded_features_are_near_the_exact_ones(name):
    """Plain convolutions, depthwise ones padded by hand, and depthwise ones among linear layers."""
    torch.manual_seed(0)
    network = architectures.build(name, 3).eval()
    backbone = Backbone(network, network.mean, network.std)
    pictures = [squash(draw_car(seed), 64) for seed in range(8)]
    images = to_batch(pictures, network.mean, network.std)
    ranges = int8.observe(network, [images[:4], images[4:]])
    assert len(ranges) > 10
    whole, begun = (openvino_engine.convert(backbone, 64) for _ in range(2))
    int8.round_graph(whole, ranges)
    kinds = [layer.get_type_name() for layer in whole.get_ops()]
    assert kinds.count("FakeQuantize") == 2 * len(ranges)
    int8.round_graph(begun, dict(list(ranges.items())[:3]))  # of random layers, each of which would double the error
    core = openvino_engine.shared_core()
    engine = openvino_engine.OpenVINOEngine(
        core.compile_model(begun, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), "int8"
    )
    with torch.no_grad():
        exact = network.forward_features(images)
    drift = float((engine.run(torch.from_numpy(np.stack(pictures))).features - exact).norm() / exact.norm())
    assert 0 < drift < 0.1
