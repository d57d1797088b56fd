"""Boxes from coverage, copy-paste scenes, and a detector trained to find the pasted cars."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from tests.conftest import draw_car
from twincar.features.copy_paste import INSET, Car, copy_paste
from twincar.modeling.detection import detector
from twincar.modeling.detection.boxes import WHOLE, Box, area, iou, with_margin
from twincar.modeling.detection.detector import find_boxes

sides = st.floats(0, 0.8)
boxes = st.tuples(sides, sides, st.floats(0.15, 1), st.floats(0.15, 1)).map(
    lambda b: (b[0], b[1], min(b[0] + b[2], 1.0), min(b[1] + b[3], 1.0))
)


@given(boxes, st.integers(6, 9), st.integers(6, 9))
def test_the_box_fitted_to_the_coverage_of_a_box_is_that_box(box, rows, columns):
    """To a fraction of a cell, for boxes that span several cells."""
    assume(min(box[2] - box[0], box[3] - box[1]) > 2.5 / 6)
    found = detector.fit_box(detector.box_coverage(np.array([box]), rows, columns)[0])
    step = np.array([1 / columns, 1 / rows] * 2) / detector.COARSE_STEPS / detector.FINE_STEPS
    assert (np.abs(np.array(found) - box) <= step + 1e-6).all()


@given(boxes, st.integers(1, 9), st.integers(1, 9))
def test_coverage_adds_up_to_the_area(box, rows, columns):
    coverage = detector.box_coverage(np.array([box]), rows, columns)
    assert coverage.shape == (1, rows, columns)
    assert coverage.min() >= 0
    assert coverage.max() <= 1 + 1e-9
    assert coverage.mean() == pytest.approx(area(box))


def test_overlap_and_margin_of_known_cases():
    assert iou((0, 0, 0.5, 1), (0, 0, 0.5, 1)) == pytest.approx(1)
    assert iou((0, 0, 0.5, 1), (0.5, 0, 1, 1)) == 0
    assert iou((0, 0, 0.5, 1), (0.25, 0, 0.75, 1)) == pytest.approx(1 / 3)
    assert with_margin((0.4, 0.2, 0.6, 0.6), (0.1, 0.25)) == pytest.approx((0.38, 0.1, 0.62, 0.7))
    assert with_margin((0.0, 0.2, 1.0, 0.9), (0.1, 0.5)) == (0, 0, 1, 1)


def test_a_copy_paste_scene_shows_the_car_in_its_box():
    """A red car on a green background: red inside the box, green around it."""
    red, green = np.full((90, 120, 3), (250, 0, 0), np.uint8), np.full((200, 300, 3), (0, 250, 0), np.uint8)
    rng = np.random.default_rng(0)
    for _ in range(30):
        picture, box = copy_paste(Car(red, INSET * 2, 1.5), green, 96, rng)
        assert (picture.shape, picture.dtype) == ((96, 96, 3), np.uint8)
        assert 0 <= box[0] < box[2] <= 1
        assert 0 <= box[1] < box[3] <= 1
        x1, y1, x2, y2 = (box * 96).round().astype(int)
        inside = np.zeros((96, 96), bool)
        inside[y1 + 1 : y2 - 1, x1 + 1 : x2 - 1] = True
        assert (picture[inside][:, 0] > picture[inside][:, 1]).all()
        far = np.ones((96, 96), bool)  # farther from the box than its context reaches
        far[max(y1 - 9, 0) : y2 + 9, max(x1 - 7, 0) : x2 + 7] = False
        assert (picture[far][:, 1] > picture[far][:, 0]).all()


@pytest.fixture(scope="module")
def trained():
    """A detector on the simplest features: the picture itself, eight pixels a cell."""
    rng = np.random.default_rng(0)
    pictures, truth = zip(*(_scene(rng) for _ in range(300)), strict=True)
    return detector.fit(_features(pictures), np.stack(truth), epochs=20), rng


def _scene(rng):
    label = int(rng.integers(5))
    ground = rng.integers(90, 160, (64, 64, 3)).astype(np.uint8)
    return copy_paste(Car(np.asarray(draw_car(label, int(rng.integers(99)))), (0.15,) * 4, 1.5), ground, 64, rng)


def _features(pictures) -> torch.Tensor:
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    cells = torch.nn.functional.pixel_unshuffle(images, 8)
    return torch.cat([cells, cells.square()], 1)


def _found(detector, features) -> list[list[Box]]:
    with torch.no_grad():
        return [find_boxes(coverage) for coverage in detector(features).sigmoid().numpy()]


def test_it_finds_the_cars(trained):
    """On held-out scenes, better than a box of the whole picture."""
    detector, rng = trained
    overlaps, whole = [], []
    for _ in range(60):
        picture, box = _scene(rng)
        (found,) = _found(detector, _features([picture]))
        overlaps.append(max((iou(one, tuple(box)) for one in found), default=0))
        whole.append(iou(WHOLE, tuple(box)))
    assert np.mean(overlaps) > 0.6
    assert np.mean(overlaps) > np.mean(whole) + 0.1


def test_nothing_is_found_on_a_background_without_cars(trained):
    detector, rng = trained
    ground = rng.integers(90, 160, (20, 64, 64, 3)).astype(np.uint8)
    assert sum(map(bool, _found(detector, _features(ground)))) <= 2


def test_several_cars_are_sorted_by_size():
    two = detector.box_coverage(np.array([(0.05, 0.5, 0.3, 0.8), (0.45, 0.2, 0.95, 0.9)]), 8, 8).sum(0)
    found = detector.find_boxes(two)
    assert len(found) == 2
    assert iou(found[0], (0.45, 0.2, 0.95, 0.9)) > 0.9
    assert iou(found[1], (0.05, 0.5, 0.3, 0.8)) > 0.8
    assert detector.find_boxes(np.full((8, 8), 0.1)) == []
