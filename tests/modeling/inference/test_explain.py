"""Class activation maps from features equal pytorch-grad-cam over the whole network."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib import colormaps
from PIL import Image
from pytorch_grad_cam import (
    AblationCAM,
    EigenCAM,
    EigenGradCAM,
    FinerCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    ScoreCAM,
    XGradCAM,
)
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import nn
from typer.testing import CliRunner

from tests.conftest import CLASSES, draw_car
from twincar import Predictor
from twincar.cli import app
from twincar.config import TwinCarError
from twincar.features.photo import load_photo
from twincar.features.transforms import squash, to_batch
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference import explain


class Whole(nn.Module):
    """A network with a layer between features and head, for the library to use as its target layer."""

    def __init__(self, network):
        super().__init__()
        self.network, self.features = network, nn.Identity()

    def forward(self, images):
        return self.network.forward_head(self.features(self.network.forward_features(images)))


def patches(tokens):
    """Reshape a transformer's (N, 1 + 36, C) tokens after the last norm to (N, C, 6, 6)."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, (6, 6))


FAST = {"Grad-CAM++": GradCAMPlusPlus, "HiResCAM": HiResCAM}
OTHERS = {
    "Grad-CAM": GradCAM,
    "XGrad-CAM": XGradCAM,
    "Layer-CAM": LayerCAM,
    "Finer-CAM": FinerCAM,
    "Eigen-CAM": EigenCAM,
    "Eigen-Grad-CAM": EigenGradCAM,
}
# The target layer of pytorch-grad-cam when it runs the whole network: one of the network's own where there is one.
NETWORKS = {
    ("resnet18", "linear"): lambda network: (network, network.layer4, None),
    ("resnet50", "two_layer"): lambda network: (network, network.layer4, None),
    ("resnet18", "cosine"): lambda network: (network, network.layer4, None),
    ("resnet18", "bilinear"): lambda network: (network, network.attention, None),
    ("timm/resnet10t", "two_layer"): lambda network: (network, network.backbone.layer4, None),
    ("timm/tf_efficientnet_lite0", "linear"): lambda network: (network, network.backbone.bn2, None),
    ("timm/resnest14d", "linear"): lambda network: (network, network.backbone.layer4, None),
    ("timm/vit_tiny_patch16_224", "linear"): lambda network: (network, network.backbone.norm, patches),
    ("timm/swin_tiny_patch4_window7_224", "linear"): lambda network: (whole := Whole(network), whole.features, None),
}


@pytest.mark.parametrize(("name", "head"), NETWORKS)
def test_equals_the_library_over_the_whole_network(name, head):
    # Square roots near 0 under bilinear pooling magnify the last digits of a batch of another size.
    compare(name, head, FAST, 1e-2 if head == "bilinear" else 2e-4)


def test_equals_the_library_where_the_mirror_image_is_read_too():
    compare("resnet18", "linear", FAST, 2e-4, flip=True)


@pytest.mark.parametrize(("name", "head"), [("resnet18", "linear"), ("timm/resnet10t", "two_layer")])
def test_the_other_methods_equal_the_library_too(name, head):
    compare(name, head, OTHERS, 1e-3)


def compare(name, head, methods, tolerance, flip=False):
    torch.manual_seed(1)
    config = {
        "architecture": {"name": name, "head": head, "dropout": 0.2},
        "class_names": CLASSES,
        "input": {"size": 96, "flip": flip},
    }
    model = CarModel(config).eval()
    photo = draw_car(1, size=(96, 96))
    copy = CarModel(config).eval()
    copy.load_state_dict(model.state_dict())
    answer = Predictor(model, device="cpu")(photo)
    images = to_batch([squash(photo, 96)])
    network, layer, reshape = NETWORKS[name, head](copy.network)
    for method, library in methods.items():
        spans = []
        for class_name in (None, *CLASSES[3:]):
            label = CLASSES.index(class_name or answer.top(1)[0].class_name)
            with library(network, [layer], reshape) as cam:
                if method == "Finer-CAM":
                    expected = cam(images, target_idx=label)[0]
                else:
                    expected = cam(images, [ClassifierOutputTarget(label)])[0]
            spans.append(np.ptp(expected))
            np.testing.assert_allclose(answer.heatmap(class_name, method), expected, atol=tolerance, err_msg=method)
        assert max(spans) > 0.5, "flat maps would prove nothing"


@pytest.fixture
def features():
    return torch.randn(40, 3, 4, generator=torch.Generator().manual_seed(0))


class TwoLayers(nn.Module):
    """A head whose logits are not linear in the features, which counts the rows of each run."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layers, self.rows = nn.Sequential(nn.Linear(40, 8), nn.ReLU(), nn.Linear(8, 5)).requires_grad_(False), []

    def forward_head(self, features):
        self.rows.append(len(features))
        return self.layers(features.mean((2, 3)))

    def forward(self, features):
        return self.forward_head(features)


@pytest.mark.parametrize(("cam", "library"), [(explain.ablation_cam, AblationCAM), (explain.score_cam, ScoreCAM)])
def test_the_methods_of_one_run_per_channel_equal_the_library(cam, library, features):
    features = features.relu()
    network = Whole(TwoLayers())
    network.network.forward_features = lambda features: features
    # A positive score: for a negative one the library's Ablation-CAM has the wrong sign.
    expected = library(network, [network.features])(features[None], [lambda logits: logits[2] + 4])[0]
    np.testing.assert_allclose(cam(network.network, features, 2), expected, atol=1e-3)
    assert np.ptp(expected) > 0.5


def test_ablation_cam_sets_one_channel_to_zero(features):
    network = TwoLayers()
    weights = []
    for channel in range(40):
        without = features.clone()
        without[channel] = 0
        weights.append(network.forward_head(features[None])[0, 2] - network.forward_head(without[None])[0, 2])
    expected = torch.einsum("c,chw->hw", torch.stack(weights), features).relu()
    expected = (expected - expected.min()) / (expected - expected.min()).max()
    np.testing.assert_allclose(explain.ablation_cam(network, features, 2), expected, atol=1e-5)


def test_many_channels_take_little_memory(features, monkeypatch):
    monkeypatch.setattr(explain, "BATCH", 16)
    for cam in (explain.ablation_cam, explain.score_cam):
        network = TwoLayers()
        cam(network, features, 0)
        assert max(network.rows) == 16 and sum(network.rows) in (40, 41)


def test_a_method_that_there_is_not_is_a_sentence(tiny_model, car_photo):
    with pytest.raises(TwinCarError, match=r"no method 'LIME': choose one of Grad-CAM\+\+, HiResCAM, Grad-CAM,"):
        Predictor.from_pretrained(tiny_model)(car_photo).heatmap(method="LIME")


@pytest.mark.parametrize("method", explain.METHODS)
def test_every_method_draws_the_whole_photo(answer, method):
    heatmap = answer.heatmap(method=method)
    assert heatmap.shape == (240, 320) and heatmap.dtype == np.float32
    assert np.isfinite(heatmap).all() and heatmap.min() >= 0 and 0.99 < heatmap.max() <= 1
    assert answer.overlay(method=method).size == answer.photo.size
    assert explain.describe_method(method).endswith(".")


def test_names_of_methods_are_found_in_any_case():
    assert list(explain.METHODS)[:2] == [explain.GRAD_CAM_PLUS_PLUS, explain.HIRES_CAM]
    for name, method in (("gradcam++", "Grad-CAM++"), ("hires-cam", "HiResCAM"), ("LAYER_CAM", "Layer-CAM")):
        assert explain.find_method(name) == method
    assert [explain.find_method(name) for name in explain.METHODS] == list(explain.METHODS)
    assert explain.describe_method("eigen cam") == explain.METHODS["Eigen-CAM"].description
    text = CliRunner().invoke(app, ["explain", "--help"], env={"COLUMNS": "400"}).stdout
    assert all(method in text for method in explain.METHODS)


def test_without_the_library_its_methods_are_a_sentence(answer, monkeypatch):
    monkeypatch.setitem(sys.modules, "pytorch_grad_cam", None)
    with pytest.raises(TwinCarError, match="needs the package grad-cam: install it with `pip install grad-cam`"):
        answer.heatmap(method="Grad-CAM")
    for method in ("Grad-CAM++", "HiResCAM", "Ablation-CAM", "Score-CAM"):
        assert answer.heatmap(method=method).any()


def test_the_library_is_imported_when_it_is_chosen(tiny_model, car_photo):
    code = """
import sys
import twincar.cli
from twincar import Predictor
answer = Predictor.from_pretrained(sys.argv[1])(sys.argv[2])
answer.heatmap(), answer.heatmap(method="HiResCAM")
assert "pytorch_grad_cam" not in sys.modules
answer.heatmap(method="Grad-CAM")
assert "pytorch_grad_cam" in sys.modules
"""
    subprocess.run([sys.executable, "-c", code, tiny_model, car_photo], check=True)


def test_maps_lie_on_the_photo_and_differ_between_classes(tiny_model, car_photo):
    answer = Predictor.from_pretrained(tiny_model)(car_photo)
    first, second = (answer.heatmap(guess.class_name) for guess in answer.top(2))
    assert first.shape == second.shape == (240, 320)
    assert first.dtype == np.float32
    assert first.min() >= 0 and first.max() <= 1
    assert not np.allclose(first, second)


def test_overlay_leaves_the_photo_where_there_is_no_evidence():
    photo = draw_car(2)
    heat = np.zeros((120, 160), np.float32)
    heat[:60] = 1
    overlay = np.asarray(explain.overlay(photo, heat))
    assert (overlay[60:] == np.asarray(photo)[60:]).all()
    bright = 0.25 * np.asarray(photo)[:60] + 0.75 * explain.COLORS[255]
    assert np.abs(overlay[:60] - bright).max() <= 1


def test_asking_for_evidence_does_not_change_the_answer(tiny_model, car_photo):
    predictor = Predictor.from_pretrained(tiny_model)
    answer = predictor(load_photo(car_photo))
    before = answer.probabilities.copy()
    once = answer.heatmap()
    assert (answer.heatmap() == once).all()
    assert (answer.probabilities == before).all()
    assert all(parameter.grad is None for parameter in predictor.network.parameters())


@pytest.fixture
def answer(tiny_model, car_photo):
    return Predictor.from_pretrained(tiny_model)(car_photo)


def test_a_difference_adds_up_to_the_two_logits(answer):
    """Under averaging and one linear layer the map is exact, but for the two biases."""
    network, features = answer._context.network, answer.features
    with torch.no_grad():
        logits = network.forward_head(features[None])[0]
        silence = network.forward_head(torch.zeros_like(features)[None])[0]  # the biases
    for label, other in ((0, 1), (4, 2)):
        map_ = explain.difference(network, features, label, other)
        assert map_.shape == features.shape[1:]
        expected = (logits[label] - logits[other]) - (silence[label] - silence[other])
        assert map_.sum() == pytest.approx(float(expected), abs=1e-4)


def test_a_difference_has_two_sides(answer):
    first, second = (guess.class_name for guess in answer.top(2))
    signed = answer.difference(first, second)
    assert signed.shape == (240, 320) and signed.dtype == np.float32
    assert np.abs(signed).max() == pytest.approx(1)
    np.testing.assert_allclose(signed, -answer.difference(second, first), atol=1e-6)
    assert not answer.difference(first, first).any()
    grey = answer.photo.convert("L").convert("RGB")
    assert answer.difference_overlay(first, first).tobytes() == grey.tobytes()


def test_a_difference_is_drawn_orange_for_the_one_and_violet_for_the_other():
    photo = draw_car(2)
    signed = np.zeros((120, 160), np.float32)
    signed[:40], signed[80:] = 1, -1
    overlay = np.asarray(explain.difference_overlay(photo, signed)).astype(int)
    red, green, blue = overlay[..., 0], overlay[..., 1], overlay[..., 2]
    assert (red[:40] > blue[:40]).all()
    assert (blue[80:] > red[80:]).all()
    assert (red[40:80] == green[40:80]).all() and (green[40:80] == blue[40:80]).all()


@settings(max_examples=50, deadline=None)
@given(hnp.arrays(np.float32, (5, 7), elements=st.floats(0, 1, width=32)), st.integers(0, 2**32 - 1))
def test_the_overlay_in_bytes_is_within_one_level_of_the_one_in_floats(cam, seed):
    picture = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    heat = explain.at_size(cam.copy(), (40, 30))
    opacity = heat[..., None].astype(float) * explain.STRONGEST
    exact = picture + (explain.COLORS[(heat * 255).astype(np.uint8)] - picture.astype(float)) * opacity
    assert np.abs(np.asarray(explain.overlay(Image.fromarray(picture), heat)) - exact).max() <= 1
    signed = 2 * heat - 1
    grey = np.asarray(Image.fromarray(picture).convert("L"))[..., None].astype(float)
    sides = np.where(signed[..., None] > 0, explain.ORANGE, explain.VIOLET)
    exact = grey + (sides - grey) * np.abs(signed)[..., None] * explain.STRONGEST
    drawn = np.asarray(explain.difference_overlay(Image.fromarray(picture), signed))
    assert np.abs(drawn - exact).max() <= 1


def test_the_colours_are_inferno():
    expected = colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255
    assert np.abs(explain.COLORS - expected).max() <= 0.51
