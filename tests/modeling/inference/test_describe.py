"""Descriptions of answers: every state, every kind of model, the command line and the page."""

import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import CLASSES
from twincar import __version__
from twincar.cli import app
from twincar.modeling.detection.boxes import WHOLE
from twincar.modeling.inference.decision import Decision, Pass
from twincar.modeling.inference.describe import confused_classes, describe, more_cars
from twincar.modeling.inference.prediction import Prediction, SimilarClass
from twincar.modeling.open_set.open_set import Verdict
from twincar.ui import answer_html

BMW = [
    "BMW 3 Series Sedan 2012", "BMW 3 Series Sedan 2007", "BMW 3 Series Wagon 2012", "BMW M3 Coupe 2012",
    "Audi S4 Sedan 2012", "Audi S4 Sedan 2007", "Lada <Niva>",
]  # fmt: skip
FEATURES = torch.zeros(1, 1, 1)


def answered(probabilities, names=BMW, is_car=None, is_known=None, similar=()) -> Prediction:
    """A Prediction of a model that gives these probabilities."""
    logits = torch.tensor(np.maximum(probabilities, 1e-9)).log()

    class Fixed(Prediction):
        pass

    Fixed.similar_classes = lambda self, class_name=None, k=3: list(similar)
    context = SimpleNamespace(class_names=names, calibration=lambda logits: logits, open_set=None)
    decision = Decision(None, Pass(FEATURES, logits, WHOLE), Verdict(is_car, is_known))
    return Fixed(Image.new("RGB", (32, 32)), decision, context)


def text(*probabilities, **open_set) -> str:
    return describe(answered(probabilities, **open_set)).text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("probabilities", "says"),
    [
        (
            (0, 0, 0, 0.97, 0.03, 0, 0),
            "BMW M3 Coupe 2012, very sure (97 %). The runner-up is the Audi S4 Sedan 2012 (3 %).",
        ),
        (
            (0.72, 0, 0, 0, 0.23, 0.05, 0),
            "BMW 3 Series Sedan 2012, fairly sure (72 %). It could also be the Audi S4 Sedan 2012 (23 %).",
        ),
        (
            (0.6, 0, 0.04, 0.35, 0.01, 0, 0),
            "BMW 3 Series Sedan 2012, more likely than not (60 %). "
            "Very sure of the make (99 %); the runner-up is the BMW M3 Coupe 2012 (35 %).",
        ),
        (
            (0.02, 0, 0.01, 0, 0.49, 0.48, 0),
            "An Audi S4 Sedan (97 %), most likely that of 2012 (49 %). It could also be the Audi S4 Sedan 2007 (48 %).",
        ),
        (
            (0.45, 0.1, 0.4, 0.03, 0.02, 0, 0),
            "A BMW 3 Series (95 %), most likely the Sedan 2012 (45 %). "
            "It could also be the BMW 3 Series Wagon 2012 (40 %).",
        ),
        (
            (0.41, 0.05, 0.12, 0.39, 0.03, 0, 0),
            "A BMW (97 %), most likely the 3 Series Sedan 2012 (41 %). It could also be the BMW M3 Coupe 2012 (39 %).",
        ),
        (
            (0.4, 0.1, 0, 0.1, 0.35, 0.05, 0),
            "Not sure: the closest match is the BMW 3 Series Sedan 2012 (40 %). "
            "The body type is more likely: a sedan (90 %).",
        ),
        (
            (0.3, 0, 0, 0.3, 0, 0, 0.4),
            "Not sure: the closest match is the Lada <Niva> (40 %). "
            "The runner-up is the BMW 3 Series Sedan 2012 (30 %).",
        ),
    ],
    ids=["very sure", "fairly sure", "make surer", "year", "body", "make", "body only", "unsure"],
)
def test_sentences_of_each_state(probabilities, says):
    assert text(*probabilities) == says


def test_no_car_and_unknown_cars_still_name_the_closest_match():
    likely = (0, 0, 0, 0.97, 0.03, 0, 0)
    assert text(*likely, is_car=True, is_known=True) == text(*likely)
    unknown = "A car, but maybe none of the 7 known models. The closest match would be the BMW M3 Coupe 2012."
    assert text(*likely, is_car=True, is_known=False) == unknown
    nothing = "No car found in this photo. The closest match would be the BMW M3 Coupe 2012."
    assert text(*likely, is_car=False, is_known=False) == nothing
    assert describe(answered(likely, is_car=False), "this frame").lead == "No car found in this frame"
    assert text(1.0, names=["Lada Niva SUV 1977"]).endswith("The model has no other class.")
    assert (more_cars(0), more_cars(2)) == ("", "This answer is for the largest of 3 cars.")


def test_similar_classes_are_named_where_they_were_confused():
    similar = (SimilarClass("BMW M3 Coupe 2012", 0.9, 3), SimilarClass("Audi S4 Sedan 2007", 0.8, 0))
    sure = answered((0.9, 0.1, 0, 0, 0, 0, 0), is_car=True, is_known=True, similar=similar)
    assert [one.class_name for one in confused_classes(sure)] == ["BMW M3 Coupe 2012"]
    line = "Similar: <b>BMW M3 Coupe 2012</b> (confused 3 times in validation)."
    assert line in answer_html.answer(sure)
    no_car = answered((0.9, 0.1, 0, 0, 0, 0, 0), is_car=False, similar=similar)
    assert "Similar:" not in answer_html.answer(no_car)


NAMES = st.sampled_from([BMW, BMW[:1], BMW[:2], CLASSES, ["x", "y z"]])
OPEN_SET = st.sampled_from([(None, None), (True, True), (True, False), (False, False)])


@st.composite
def answers(draw):
    names, (is_car, is_known) = draw(NAMES), draw(OPEN_SET)
    weights = draw(
        st.lists(st.sampled_from([1e-6, 0.01, 0.2, 0.3, 1, 5, 1e5]), min_size=len(names), max_size=len(names))
    )
    return answered(np.array(weights) / sum(weights), names, is_car, is_known)


@given(answers())
def test_any_answer_is_one_or_two_sentences_about_its_first_guess(answer):
    said, best = describe(answer), answer.top(1)[0]
    assert 1 <= len(re.findall(r"[.](?= [A-Z]|$)", said.text)) <= 2
    assert said.text[0].isupper() or said.text.startswith(best.class_name)
    assert best.class_name in said.text or best.make in said.first
    assert "certain" not in said.text and "  " not in said.text
    for percent in re.findall(r"(\S+ ?\d+)\N{NO-BREAK SPACE}%", said.text):
        assert int(re.search(r"\d+", percent)[0]) <= 99
    html = answer_html.answer(answer)
    assert "<Niva>" not in html
    assert html.count("<h2>") == 1 == html.count("</h2>")


# The command line -----------------------------------------------------------------------------------------------------


def test_the_command_line_prints_it_above_the_list(car_photo, tiny_model):
    from twincar import Predictor

    done = CliRunner().invoke(app, ["predict", str(car_photo), "--model", str(tiny_model)], env={"COLUMNS": "200"})
    lines = done.stdout.splitlines()
    assert lines[1].strip() == describe(Predictor.from_pretrained(tiny_model)(car_photo)).text
    assert sum("%  " in line for line in lines[2:]) == 5


def test_json_has_open_set_results_boxes_and_makes(car_photo, tiny_model, monkeypatch):
    from tests.helpers.fake_predictor import fake_predictor
    from twincar import Predictor

    arguments = ["predict", str(car_photo), "--model", str(tiny_model), "--json"]
    plain = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert [plain[key] for key in ("is_car", "is_known", "box", "others")] == [None, None, None, []]
    assert [car["top"] for car in plain["cars"]] == [plain["top"]]
    assert [make["make"] for make in plain["makes"]] == [guess["make"] for guess in plain["top"][:3]]
    fake = fake_predictor((0, 0.1, 0.25, 0.4), (0.4, 0.4, 1, 1), is_known=1e9)
    monkeypatch.setattr(Predictor, "from_pretrained", lambda name, **how: fake)
    found = json.loads(CliRunner().invoke(app, arguments).stdout)
    assert (found["is_car"], found["is_known"]) == (True, False)
    assert len(found["box"]) == 4 and len(found["others"]) == 1
    assert found["top"][0]["class_name"] in CLASSES
    assert found["state"] == "unknown_car" and found["version"] == __version__
    first, second = found["cars"]
    assert {key: found[key] for key in first if key != "said"} == {key: first[key] for key in first if key != "said"}
    assert second["box"] == found["others"][0] and second["top"] != first["top"]
    assert set(second) == {"box", "top", "makes", "is_known", "state", "said"}
    said = CliRunner().invoke(app, arguments[:-1], env={"COLUMNS": "200"}).stdout
    assert "A car, but maybe none of the 5 known models." in said
    assert "Car 1 of 2: A car" in said and "Car 2 of 2: A car" in said
