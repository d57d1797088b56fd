"""8-bit inference: ranges are measured by the command, saved in the model, validated by the engine, and discarded if
they cost too much."""

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import draw_car
from tests.helpers.configs import config_of
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
from twincar.modeling.training import run_folder

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
def quantized(tmp_path, data, monkeypatch):
    """Folder of a model with random weights and its ranges."""
    monkeypatch.setattr(quantize, "MAX_TOP1_LOSS", 1.0)
    monkeypatch.setattr(quantize, "MIN_AGREEMENT", 0.0)
    folder = save_model(tmp_path / "model")
    done = twincar("quantize", "--model", folder, "--data", data)
    assert done.exit_code == 0, done.output
    assert "on 6 val pictures" in done.output
    return folder


def test_ranges_are_saved_and_predictions_nearly_the_same(quantized):
    int8 = config_of(quantized)["int8"]
    assert int8["pictures"] == 6
    assert "layer4.1.conv2" in int8["ranges"]
    assert "conv1" not in int8["ranges"]  # the first convolution and the one after it are not quantized
    assert "layer1.0.conv1" not in int8["ranges"]
    assert all(low <= 0 < high for low, high in int8["ranges"].values())
    assert "## 8-bit inference" in (quantized / "README.md").read_text()
    fast, truth = (Predictor.from_pretrained(quantized, engine=name) for name in ("openvino:int8", "torch:f32"))
    assert fast.engine.name == "openvino:int8"
    for seed in range(3):
        photo = draw_car(seed)
        np.testing.assert_allclose(fast(photo).probabilities, truth(photo).probabilities, atol=0.05)
        assert not np.array_equal(fast(photo).probabilities, truth(photo).probabilities)


@pytest.mark.slow
def test_ranges_of_another_network_are_rejected(quantized):
    model = model_folder.load(quantized)
    ranges = model.config["int8"]["ranges"]
    backbone = Backbone(model.network, IMAGENET_MEAN, IMAGENET_STD)
    for wrong in ({"layer9.conv1": (0.0, 1.0)}, {name: (0.0, high / 50) for name, (_, high) in ranges.items()}):
        with pytest.raises(EngineError):
            choose(backbone, 64, "cpu", "openvino:int8", wrong)
        assert choose(backbone, 64, "cpu", "openvino", wrong).name in ("openvino:f32", "openvino:bf16")
    with pytest.raises(EngineError, match="twincar quantize"):
        choose(backbone, 64, "cpu", "openvino:int8")


def test_ranges_that_lose_too_much_are_discarded(tmp_path, data, monkeypatch):
    folder = save_model(tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    for name, value in (("MAX_TOP1_LOSS", -1.1), ("MIN_AGREEMENT", 1.1)):
        with monkeypatch.context() as patch:
            patch.setattr(quantize, name, value)
            done = twincar("quantize", "--model", folder, "--data", data)
        assert done.exit_code == 2
        assert "The ranges were discarded" in done.output
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_table_without_training_pictures_is_refused(tmp_path, data):
    table = load_table(data)
    with pytest.raises(quantize.TwinCarError, match="no train pictures"):
        quantize.quantize(model_folder.load(save_model(tmp_path / "model")), table[table["split"] == "val"])


@pytest.mark.parametrize("name", ["resnet50", "timm/tf_efficientnet_lite0", "timm/convnext_atto"])
def test_quantized_features_are_close_to_the_exact_ones(name):
    """Plain convolutions, depthwise ones padded by hand, and depthwise ones among linear layers."""
    torch.manual_seed(0)
    network = architectures.build(name, 3).eval()
    backbone = Backbone(network, network.mean, network.std)
    pictures = [squash(draw_car(seed), 64) for seed in range(8)]
    images = to_batch(pictures, network.mean, network.std)
    ranges = int8.observe(network, [images[:4], images[4:]])
    assert len(ranges) > 10
    full, partial = (openvino_engine.convert(backbone, 64) for _ in range(2))
    int8.quantize_graph(full, ranges)
    kinds = [layer.get_type_name() for layer in full.get_ops()]
    assert kinds.count("FakeQuantize") == 2 * len(ranges)
    int8.quantize_graph(partial, dict(list(ranges.items())[:3]))  # in random layers, each more would double the error
    core = openvino_engine.shared_core()
    engine = openvino_engine.OpenVINOEngine(
        core.compile_model(partial, "CPU", {"INFERENCE_PRECISION_HINT": "f32"}), "int8"
    )
    with torch.no_grad():
        exact = network.forward_features(images)
    drift = float((engine.run(torch.from_numpy(np.stack(pictures))).features - exact).norm() / exact.norm())
    # Without VNNI or AMX, sums of products of bytes saturate: there the engine's own tolerance is what holds.
    exact_sums = any(feature in run_folder.cpuinfo() for feature in ("vnni", "amx_int8"))
    assert 0 < drift < (0.1 if exact_sums else openvino_engine.TOLERANCE["int8"])
