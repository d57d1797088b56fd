"""Calibration recovers a known distortion, changes no ranking, and is measured correctly."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import CLASSES
from twincar import Predictor
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.inference.calibration import (
    Calibration,
    calibration,
    cross_fitted,
    fit,
    fit_temperature,
    reliability,
    selective,
)


@pytest.mark.parametrize("true", [0.001, 0.3, 1.0, 2.5, 400.0])
def test_finds_the_temperature(true):
    logits, labels = drawn(20000)
    assert fit_temperature(logits * true, labels) == pytest.approx(true, rel=0.05)
    assert fit_temperature((logits * true).log_softmax(1), labels) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("logits", [[[2.0]], [[1.0, 1.0, 1.0]], [[0.0, 5.0, -5.0]], [[-3e-3, 0.0, 3e-3]]])
def test_finds_a_temperature_for_a_single_picture(logits):
    temperature = fit_temperature(torch.tensor(logits), torch.tensor([0]))
    assert 0 < temperature < math.inf
    assert torch.isfinite(Calibration(temperature)(torch.tensor(logits))).all()


def test_predictor_applies_it_and_keeps_the_ranking(car_photo):
    torch.manual_seed(0)
    config = {"architecture": {"name": "resnet18"}, "class_names": CLASSES, "input": {"size": 64}}
    model = CarModel(config).eval()
    plain = Predictor(model)(car_photo)
    model.config["temperature"] = 0.5
    sharp = Predictor(model)(car_photo)
    assert [guess.class_name for guess in plain.top(5)] == [guess.class_name for guess in sharp.top(5)]
    squared = plain.probabilities**2
    assert sharp.probabilities == pytest.approx(squared / squared.sum(), abs=1e-5)
    assert (plain.heatmap() == sharp.heatmap()).all()


def test_reliability_of_a_known_case():
    """Four pictures at 0.6, two of them right; two at 0.9, both right."""
    probabilities = torch.tensor([[0.6, 0.4]] * 4 + [[0.1, 0.9]] * 2)
    labels = torch.tensor([0, 0, 1, 1, 1, 1])
    table = reliability(probabilities, labels, bins=3)
    assert table["count"].tolist() == [2, 2, 2]
    assert table["accuracy"].iloc[2] == 1
    assert table["accuracy"].iloc[:2].mean() == 0.5
    assert table["confidence"].tolist() == pytest.approx([0.6, 0.6, 0.9])
    assert (table["low"] <= table["accuracy"]).all()
    assert (table["accuracy"] <= table["high"]).all()
    one_bin = calibration(probabilities, labels, bins=1)
    assert one_bin["ece"] == pytest.approx(abs(4 / 6 - (4 * 0.6 + 2 * 0.9) / 6))
    assert one_bin["brier"] == pytest.approx((2 * 0.32 + 2 * 0.72 + 2 * 0.02) / 6)
    assert one_bin["nll"] == pytest.approx(-math.log(0.6**2 * 0.4**2 * 0.9**2) / 6)


def drawn(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and labels that are drawn from their softmax: perfectly calibrated."""
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(count, 6, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


def test_cross_fitting_corrects_overconfidence():
    logits, labels = drawn(4000)
    true = logits.softmax(1)
    corrected = cross_fitted(3 * logits, labels)
    assert (corrected.argmax(1) == true.argmax(1)).all()
    assert calibration((3 * logits).softmax(1), labels)["ece"] > 0.1
    assert calibration(corrected, labels)["ece"] < 0.03
    assert calibration(corrected, labels)["nll"] == pytest.approx(calibration(true, labels)["nll"], abs=0.005)
    assert cross_fitted(logits[:2], labels[:2]).sum() == pytest.approx(2)


def test_only_the_top_class_is_moved():
    """A temperature is not enough: the top class is right half as often as its probability says."""
    logits, labels = drawn(6000)
    other = torch.rand(len(labels), generator=torch.Generator().manual_seed(1)) < 0.5
    labels = torch.where(other & labels.eq(logits.argmax(1)), logits.topk(2, 1).indices[:, 1], labels)
    found = fit(logits, labels)
    after = found(logits).softmax(1)
    by_temperature = (logits / found.temperature).softmax(1)
    assert calibration(after, labels)["ece"] < 0.6 * calibration(by_temperature, labels)["ece"]
    assert calibration(after, labels)["nll"] < calibration(by_temperature, labels)["nll"]
    rest = ~torch.nn.functional.one_hot(logits.argmax(1), 6).bool()
    fractions = after[rest].view(-1, 5) / after[rest].view(-1, 5).sum(1, keepdim=True)
    fractions_before = by_temperature[rest].view(-1, 5) / by_temperature[rest].view(-1, 5).sum(1, keepdim=True)
    assert torch.allclose(fractions, fractions_before, atol=1e-5)


@given(
    st.lists(st.lists(st.floats(-30, 30), min_size=3, max_size=3), min_size=1, max_size=5),
    st.floats(0.05, 20),
    st.floats(0, 5),
    st.floats(-8, 8),
)
def test_no_calibration_changes_a_ranking(rows, temperature, slope, intercept):
    logits = torch.tensor(rows, dtype=torch.float64)
    after = Calibration(temperature, slope, intercept)(logits)
    assert torch.isfinite(after).all()
    best = logits.max(1, keepdim=True).values
    assert (after.gather(1, logits.argmax(1, keepdim=True)) >= after.max(1, keepdim=True).values - 1e-9).all()
    others = torch.where(logits == best, -torch.inf, logits)
    assert torch.equal(torch.where(logits == best, -torch.inf, after).isfinite(), others.isfinite())
    assert torch.allclose(after[others.isfinite()], (logits / temperature)[others.isfinite()])


def test_an_older_model_has_only_a_temperature():
    assert Calibration.from_config({"temperature": 0.5}) == Calibration(0.5)
    assert Calibration.from_config({}) == Calibration()
    assert Calibration.from_config({"calibration": {"temperature": 2, "slope": 0.9, "intercept": 0.1}}) == Calibration(
        2, 0.9, 0.1
    )
    one_class = torch.tensor([[3.0]])
    assert torch.equal(Calibration(2.0, 0.5, 1.0)(one_class), one_class / 2)


def test_selective_accuracy_of_a_known_case():
    """Four pictures: right where it is sure, wrong where it is not."""
    probabilities = torch.tensor([[0.9, 0.1], [0.8, 0.2], [0.6, 0.4], [0.55, 0.45]])
    table = selective(probabilities, torch.tensor([0, 0, 1, 1]))
    assert table["answered"].tolist() == [0.25, 0.5, 0.75, 1.0]
    assert table["accuracy"].tolist() == pytest.approx([1, 1, 2 / 3, 0.5])
    assert table["least"].tolist() == pytest.approx([0.9, 0.8, 0.6, 0.55])
