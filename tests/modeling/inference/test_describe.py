"""What is said of an answer: right in every state, for every model, on the command line as on the page."""

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
from twincar.cli import app
from twincar.modeling.inference.describe import confused_classes, describe, more_cars
from twincar.modeling.inference.prediction import Pass, Prediction, SimilarClass
from twincar.ui import answer as answer_html

BMW = [
    "BMW 3 Series Sedan 2012", "BMW 3 Series Sedan 2007", "BMW 3 Series Wagon 2012", "BMW M3 Coupe 2012",
    "Audi S4 Sedan 2012", "Audi S4 Sedan 2007", "Lada <Niva>",
]  # fmt: skip
LOOK = torch.zeros(1, 1, 1)


def answered(probabilities, names=BMW, is_car=None, is_known=None, alike=()) -> Prediction:
    """A Prediction of a model that gives these probabilities."""
    logits = torch.tensor(np.maximum(probabilities, 1e-9)).log()

    class Told(Prediction):
        pass

    Told.is_car, Told.is_known = is_car, is_known
    Told.alike = lambda self, class_name=None, k=3: list(alike)
    predictor = SimpleNamespace(class_names=names, calibration=lambda given: given, open_set=None)
    return Told(Image.new("RGB", (32, 32)), [Pass(LOOK, logits)], [], predictor)


def text(*probabilities, **open_set) -> str:
    return describe(answered(probabilities, **open_set)).text.replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize(
    ("probabilities", "says"),
    [
        (
            (0, 0, 0, 0.97, 0.03, 0, 0),
            "BMW M3 Coupe 2012, very sure (97 %). Next comes the Audi S4 Sedan 2012 (3 %).",
        ),
        (
            (0.72, 0, 0, 0, 0.23, 0.05, 0),
            "BMW 3 Series Sedan 2012, fairly sure (72 %). It could also be the Audi S4 Sedan 2012 (23 %).",
        ),
        (
            (0.6, 0, 0.04, 0.35, 0.01, 0, 0),
            "BMW 3 Series Sedan 2012, more likely than not (60 %). "
            "Of the make I am very sure (99 %); next comes the BMW M3 Coupe 2012 (35 %).",
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
            "I am not sure: it looks most like the BMW 3 Series Sedan 2012 (40 %). "
            "I am surer that it is a sedan (90 %).",
        ),
        (
            (0.3, 0, 0, 0.3, 0, 0, 0.4),
            "I am not sure: it looks most like the Lada <Niva> (40 %). The BMW 3 Series Sedan 2012 comes next (30 %).",
        ),
    ],
    ids=["very sure", "fairly sure", "make surer", "year", "body", "make", "body only", "unsure"],
)
def test_it_says_what_is_known(probabilities, says):
    assert text(*probabilities) == says


def test_doubts_are_kind_and_still_name_the_nearest():
    likely = (0, 0, 0, 0.97, 0.03, 0, 0)
    assert text(*likely, is_car=True, is_known=True) == text(*likely)
    unknown = "A car, but perhaps none that I know. It looks most like the BMW M3 Coupe 2012."
    assert text(*likely, is_car=True, is_known=False) == unknown
    nothing = "I see no car in this photo. What comes nearest is the BMW M3 Coupe 2012."
    assert text(*likely, is_car=False, is_known=False) == nothing
    assert describe(answered(likely, is_car=False), "this frame").lead == "I see no car in this frame"
    assert text(1.0, names=["Lada Niva SUV 1977"]).endswith("I know no other car.")
    assert (more_cars(0), more_cars(2)) == ("", "I took the largest of 3 cars.")


def test_look_alikes_are_named_where_they_were_confused():
    alike = (SimilarClass("BMW M3 Coupe 2012", 0.9, 3), SimilarClass("Audi S4 Sedan 2007", 0.8, 0))
    sure = answered((0.9, 0.1, 0, 0, 0, 0, 0), is_car=True, is_known=True, alike=alike)
    assert [one.class_name for one in confused_classes(sure)] == ["BMW M3 Coupe 2012"]
    assert "Often confused with <b>BMW M3 Coupe 2012</b> (3 pictures of the two were mixed up" in answer_html.answer(
        sure
    )
    assert "Often confused" not in answer_html.answer(answered((0.9, 0.1, 0, 0, 0, 0, 0), is_car=False, alike=alike))


NAMES = st.sampled_from([BMW, BMW[:1], BMW[:2], CLASSES, ["x", "y z"]])
DOUBTS = st.sampled_from([(None, None), (True, True), (True, False), (False, False)])


@st.composite
def answers(draw):
    names, (is_car, is_known) = draw(NAMES), draw(DOUBTS)
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


def test_the_command_line_says_it_above_the_list(car_photo, tiny_model):
    from twincar import Predictor

    done = CliRunner().invoke(app, ["predict", str(car_photo), "--model", str(tiny_model)], env={"COLUMNS": "200"})
    lines = done.stdout.splitlines()
    assert lines[1].strip() == describe(Predictor.from_pretrained(tiny_model)(car_photo)).text
    assert sum("%  " in line for line in lines[2:]) == 5


def test_json_tells_doubts_boxes_and_makes(car_photo, tiny_model, monkeypatch):
    from tests.helpers.fake_predictor import fake_predictor
    from twincar import Predictor

    words_ = ["predict", str(car_photo), "--model", str(tiny_model), "--json"]
    plain = json.loads(CliRunner().invoke(app, words_).stdout)
    assert [plain[key] for key in ("is_car", "is_known", "box", "others")] == [None, None, None, []]
    assert [make["make"] for make in plain["makes"]] == [guess["make"] for guess in plain["top"][:3]]
    taught = fake_predictor((0, 0.1, 0.25, 0.4), (0.4, 0.4, 1, 1), is_known=1e9)
    monkeypatch.setattr(Predictor, "from_pretrained", lambda name, **how: taught)
    told = json.loads(CliRunner().invoke(app, words_).stdout)
    assert (told["is_car"], told["is_known"]) == (True, False)
    assert len(told["box"]) == 4 and len(told["others"]) == 1
    assert told["top"][0]["class_name"] in CLASSES
    said = CliRunner().invoke(app, words_[:-1], env={"COLUMNS": "200"}).stdout
    assert "A car, but perhaps none that I know." in said and "I took the largest of 2 cars." in said
