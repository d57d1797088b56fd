"""Temperature scaling finds the temperature that the logits were spoilt with, and changes no answer."""

import math

import pytest
import torch

from tests.conftest import CLASSES
from twincar import Predictor
from twincar.modeling.calibrate import calibration, cross_fitted, fit_temperature, reliability
from twincar.modeling.hub import CarModel


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_finds_the_temperature(true):
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(20000, 6, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    assert fit_temperature(logits * true, labels) == pytest.approx(true, rel=0.05)
    assert fit_temperature((logits * true).log_softmax(1), labels) == pytest.approx(true, rel=0.05)


def test_predictor_applies_it_and_ranks_alike(car_photo):
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


def test_cross_fitting_undoes_what_others_show_to_be_wrong():
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(4000, 6, generator=generator)
    labels = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    true, spoilt = logits.softmax(1), (3 * logits).softmax(1)
    mended = cross_fitted(spoilt, labels)
    assert (mended.argmax(1) == true.argmax(1)).all()
    assert calibration(spoilt, labels)["ece"] > 0.1
    assert calibration(mended, labels)["ece"] < 0.03
    assert calibration(mended, labels)["nll"] == pytest.approx(calibration(true, labels)["nll"], abs=0.005)
    assert torch.allclose(mended, cross_fitted(true, labels), atol=1e-3)  # whatever temperature came before
    assert cross_fitted(true[:2], labels[:2]).sum() == pytest.approx(2)
