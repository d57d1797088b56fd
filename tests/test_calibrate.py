"""Temperature scaling finds the temperature that the logits were spoilt with, and changes no answer."""

import pytest
import torch

from tests.conftest import CLASSES
from twincar import Predictor
from twincar.modeling.calibrate import fit_temperature
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
