"""One decision per photo: what an answer says of cars, boxes and known classes never contradicts itself."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import draw_car
from tests.helpers.fake_predictor import fake_predictor
from twincar.modeling.detection.boxes import WHOLE
from twincar.modeling.inference.decision import Decision, Pass, decide, decide_given
from twincar.modeling.inference.describe import STATES, as_dict
from twincar.modeling.open_set.open_set import Verdict

LARGE, SMALL = (0.4, 0.4, 1.0, 1.0), (0.0, 0.1, 0.25, 0.4)
CAR, KNOWN, NONE = Verdict(True, False, 1.0, 1.0), Verdict(True, True, 1.0, 9.0), Verdict(False, False, -1.0, 1.0)


def a_pass(part=WHOLE) -> Pass:
    return Pass(torch.zeros(1, 1, 1), torch.zeros(2), part)


def verdicts(**of_parts):
    """A judge by the part of the photo that was read: `whole`, `large`, `small`."""
    parts = {"whole": WHOLE, "large": LARGE, "small": SMALL}
    return lambda read: next(of_parts[name] for name, part in parts.items() if part == read.part)


DETECTED = [(LARGE, a_pass(LARGE)), (SMALL, a_pass(SMALL))]


def boxes(decisions: list[Decision]) -> list:
    return [decision.box for decision in decisions]


@pytest.mark.parametrize(
    ("judge", "expected"),
    [
        (verdicts(whole=NONE, large=CAR, small=KNOWN), [(LARGE, CAR), (SMALL, KNOWN)]),
        (verdicts(whole=CAR, large=NONE, small=CAR), [(SMALL, CAR)]),  # forest is no second car
        (verdicts(whole=NONE, large=NONE, small=NONE), [(None, NONE)]),  # no frame without a car
        (verdicts(whole=KNOWN, large=NONE, small=NONE), [(None, KNOWN)]),
        (verdicts(whole=Verdict(), large=Verdict(), small=Verdict()), [(LARGE, Verdict()), (SMALL, Verdict())]),
    ],
    ids=["two cars", "one is none", "no car", "whole photo", "no open-set data"],
)
def test_boxes_are_those_of_the_cars(judge, expected):
    found = decide(a_pass(), DETECTED, judge)
    assert [(decision.box, decision.verdict) for decision in found] == expected
    assert all(decision.read.part == (decision.box or WHOLE) for decision in found)


@pytest.mark.parametrize(
    ("box", "label", "cars"),
    [
        ((0.42, 0.5, 0.8, 0.95), 1, 1),  # a part of the large car
        ((0.42, 0.5, 0.8, 0.95), 0, 2),  # another car before it
        ((0.1, 0.5, 0.7, 0.95), 1, 2),  # half of it beside the large car
    ],
)
def test_a_second_box_on_a_car_is_no_second_car(box, label, cars):
    large, other = (Pass(torch.zeros(1, 1, 1), torch.eye(2)[index], part) for index, part in ((1, LARGE), (label, box)))
    found = decide(a_pass(), [(LARGE, large), (box, other)], lambda read: KNOWN)
    assert boxes(found) == [LARGE, box][:cars]
    not_a_car = decide(a_pass(), [(LARGE, large), (box, other)], lambda read: NONE if read is large else KNOWN)
    assert boxes(not_a_car) == [box]  # then the part is all that was found


@pytest.mark.parametrize(
    ("box", "verdict"),
    [(WHOLE, KNOWN), ((0.35, 0.3, 1, 1), KNOWN), ((0.45, 0.45, 0.9, 0.95), KNOWN), ((0, 0, 0.3, 0.4), CAR),
     ((0.5, 0, 1, 0.35), NONE)],
)  # fmt: skip
def test_a_loose_frame_does_not_turn_a_found_car_into_none(box, verdict):
    given = decide_given(a_pass(box), box, [(LARGE, KNOWN), (SMALL, CAR)], lambda read: NONE)
    assert (given.box, given.verdict.is_car, given.verdict.is_known) == (box, verdict.is_car, verdict.is_known)


@pytest.mark.parametrize("is_car", [-1e9, 1e9])
@pytest.mark.parametrize("is_known", [-1e9, 1e9])
@pytest.mark.parametrize("detected", [(), (LARGE,), (SMALL, LARGE)])
def test_an_answer_never_contradicts_itself(detected, is_car, is_known):
    predictor = fake_predictor(*detected, is_car=is_car, is_known=is_known)
    photo = draw_car(3, size=(640, 480))
    found = predictor(photo)
    by_hand = predictor(photo, box=(0, 0, 640, 480), found=found.cars)
    for answer in (found, predictor(photo, refine=False), *predictor.batch([photo]), by_hand, *found.cars):
        told = as_dict(answer)
        assert told["state"] in STATES
        assert (told["state"] == "no_car") == (not told["cars"]) == (answer.is_car is False)
        assert (told["state"] == "unknown_car") == bool(told["cars"] and not told["is_known"])
        assert told["is_car"] or not told["is_known"]
        assert ("No car" in told["said"]) == (not told["cars"])
        assert [told["box"], *told["others"]] == ([car["box"] for car in told["cars"]] or [None]) or answer is by_hand
    assert by_hand.is_car == found.is_car
    if is_car < 0:
        assert len(found.cars) == max(len(detected), 1)
        areas = [car.box and (car.box[2] - car.box[0]) * (car.box[3] - car.box[1]) for car in found.cars]
        assert areas == sorted(areas, reverse=True) or areas == [None]


def test_all_cars_of_a_folder_are_read_in_one_batch_and_one_car_needs_no_third_pass(monkeypatch):
    predictor = fake_predictor(SMALL, LARGE)
    runs, run = [], predictor.run
    monkeypatch.setattr(predictor, "run", lambda pictures: runs.append(len(pictures)) or run(pictures))
    street = Image.new("RGB", (640, 480), "grey")
    street.paste(draw_car(1, size=(320, 240)), (300, 220))
    answers = predictor.batch([street, draw_car(2, size=(640, 480)), street])
    assert runs == [3, 6]
    for alone, together in zip(predictor(street).cars, answers[2].cars, strict=True):
        assert np.allclose(alone.probabilities, together.probabilities, atol=1e-5)
        assert alone.bounds == together.bounds
    assert len({tuple(car.top(5)) for car in answers[0].cars}) == 2  # each has its own answer
    heat = [car.heatmap() for car in answers[0].cars]
    assert heat[0][:150].max() == 0 and heat[1][260:].max() == 0  # and its own evidence
    runs.clear()
    predictor.detector.boxes = (LARGE,)
    assert len(predictor(street).cars) == 1 and runs == [1, 1]
    runs.clear()
    predictor.detector.boxes = ((0.02, 0.03, 0.97, 0.98),)
    assert len(predictor(street).cars) == 1 and runs == [1]


def test_the_version_changes_with_every_part_of_the_model(tiny_model):
    from twincar import Predictor
    from twincar.modeling.hub.model_folder import model_version

    config = Predictor.from_pretrained(tiny_model).config
    versions = [model_version(config), model_version(config | {"open_set": {"sha256": "1"}})]
    versions += [model_version(config | {"detector": {"sha256": "1"}}), model_version(config | {"weights_sha256": "1"})]
    assert len(set(versions)) == 4 and all(len(version) == 12 for version in versions)
    assert as_dict(Predictor.from_pretrained(tiny_model)(draw_car(0)))["model"]["version"] == versions[0]
