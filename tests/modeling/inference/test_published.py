"""The published model: complete folder, size, answers, and agreement with its card and reports."""

import json

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import draw_car
from tests.helpers.configs import config_of
from twincar import Predictor
from twincar.config import CHECKOUT, PUBLISHED, STANFORD_CARS
from twincar.modeling.hub.card import model_card


@pytest.fixture(scope="module")
def config() -> dict:
    return config_of(PUBLISHED)


def test_it_answers_for_the_196_cars():
    predictor = Predictor.from_pretrained(PUBLISHED)
    assert predictor.class_names == STANFORD_CARS
    answer = predictor(draw_car(0))
    assert answer.probabilities.sum() == pytest.approx(1, abs=1e-4)
    assert answer.overlay().size == answer.photo.size


def test_the_file_is_small_and_in_half_precision():
    file = PUBLISHED / "model.safetensors"
    assert file.stat().st_size < 60e6
    assert {value.dtype for value in load_file(file).values() if value.is_floating_point()} == {torch.float16}


def test_card_and_reports_agree_with_the_config(config):
    assert (PUBLISHED / "README.md").read_text() == model_card(config, timm=True)
    reports = CHECKOUT / "reports" / config["recipe"]["name"]
    scores = json.loads((reports / "scores.json").read_text())
    assert {name: config["scores"][name] for name in scores} == scores
    predictions = pd.read_csv(reports / "predictions.csv")
    assert len(predictions) == scores["pictures"] == 815
    assert predictions["correct"].mean() == pytest.approx(scores["top1"], abs=1e-6)
    log = pd.read_csv(reports / "metrics.csv")
    recipe = json.loads((reports / "recipe.json").read_text())
    assert len(log) == recipe["epochs"] == config["training"]["epochs"]
    assert recipe == config["recipe"]


def test_the_licence_of_the_start_weights_travels_with_it(config):
    assert "non-commercial" in config["notice"]
    assert "non-commercial purpose" in (PUBLISHED / "LICENSE").read_text()
