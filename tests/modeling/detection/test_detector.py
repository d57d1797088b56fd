"""Copy-paste scenes, boxes from detections, and a detector trained to find the pasted cars."""

from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from tests.conftest import draw_car
from twincar.config import TwinCarError
from twincar.features.copy_paste import INSET, MIN_SIDE, Car, copy_paste, join, paste_scene
from twincar.modeling.detection import detector
from twincar.modeling.detection.boxes import iou, with_margin
from twincar.modeling.detection.detector import Detection, Detector, OutdatedDetectorError, find_boxes
from twincar.modeling.publishing.fit_detector import choose_threshold, evaluate_detector


def test_overlap_and_margin_of_known_cases():
    assert iou((0, 0, 0.5, 1), (0, 0, 0.5, 1)) == pytest.approx(1)
    assert iou((0, 0, 0.5, 1), (0.5, 0, 1, 1)) == 0
    assert iou((0, 0, 0.5, 1), (0.25, 0, 0.75, 1)) == pytest.approx(1 / 3)
    assert with_margin((0.4, 0.2, 0.6, 0.6), (0.1, 0.25)) == pytest.approx((0.38, 0.1, 0.62, 0.7))
    assert with_margin((0.0, 0.2, 1.0, 0.9), (0.1, 0.5)) == (0, 0, 1, 1)


# Scenes --------------------------------------------------------------------------------------------------------------

RED, GREEN = np.full((90, 120, 3), (250, 0, 0), np.uint8), np.full((200, 300, 3), (0, 250, 0), np.uint8)


def check_colors(picture, boxes):
    """Check that a scene of red cars on a green background is red inside the boxes and green far from them."""
    size = len(picture)
    red = picture[..., 0].astype(int) > picture[..., 1]
    far = np.ones((size, size), bool)  # farther from the boxes than their context reaches
    for x1, y1, x2, y2 in (boxes * size).round().astype(int):
        assert red[y1 + 2 : y2 - 2, x1 + 2 : x2 - 2].mean() > 0.5
        far[max(y1 - 9, 0) : y2 + 9, max(x1 - 9, 0) : x2 + 9] = False
    assert not red[far].any()


def test_a_copy_paste_scene_shows_the_car_in_its_box():
    rng = np.random.default_rng(0)
    for _ in range(30):
        picture, box = copy_paste(Car(RED, INSET * 2, 1.5), GREEN, 96, rng)
        assert (picture.shape, picture.dtype) == ((96, 96, 3), np.uint8)
        assert 0 <= box[0] < box[2] <= 1
        assert 0 <= box[1] < box[3] <= 1
        check_colors(picture, box[None])


@pytest.mark.parametrize("count", [0, 1, 2, 6])
def test_a_scene_shows_every_car_in_its_box(count, monkeypatch):
    monkeypatch.setattr("twincar.features.copy_paste._random_fade", lambda rng: (1.0, 0.0))
    monkeypatch.setattr("twincar.features.copy_paste._with_colors", lambda ground, car, strength: ground)
    rng, most = np.random.default_rng(0), 0
    for _ in range(20):
        picture, boxes = paste_scene([Car(RED, INSET * 2, 1.5)] * count, GREEN, 96, rng)
        assert (picture.shape, picture.dtype) == ((96, 96, 3), np.uint8)
        assert boxes.shape[1:] == (4,)
        assert (boxes >= 0).all() and (boxes <= 1).all()
        assert (boxes[:, 2:] - boxes[:, :2] >= MIN_SIDE - 1e-9).all()
        check_colors(picture, boxes)
        most = max(most, len(boxes))
    assert most == count


def test_the_box_of_a_hidden_car_is_what_can_be_seen():
    """Cars in one place, one red and one blue: of the farther one the part beside the nearer one is framed."""
    rng = np.random.default_rng(1)
    blue = np.full((90, 120, 3), (0, 0, 250), np.uint8)
    overlapping = 0
    for _ in range(60):
        picture, boxes = paste_scene([Car(RED, INSET * 2, 1.5), Car(blue, INSET * 2, 1.5)], GREEN, 96, rng)
        if len(boxes) == 2 and iou(*map(tuple, boxes)) > 0.05:
            overlapping += 1
            colors = picture.argmax(2)
            for x1, y1, x2, y2 in (boxes * 96).round().astype(int):
                inside = colors[y1:y2, x1:x2]
                assert max((inside == 0).mean(), (inside == 2).mean()) > 0.4
    assert overlapping >= 3


def test_scenes_side_by_side_keep_their_boxes():
    rng = np.random.default_rng(0)
    scenes = [(np.full((96, 96, 3), 50 * index, np.uint8), np.array([[0.2, 0.1, 0.8, 0.9]])) for index in range(3)]
    picture, boxes = join(scenes, rng)
    assert picture.shape == (96, 96, 3)
    for index, (x1, y1, x2, y2) in enumerate(boxes):
        assert (y1, y2) == (0.1, 0.9)
        assert (picture[:, round(x1 * 96) : round(x2 * 96)] == 50 * index).all()


# Boxes from detections -----------------------------------------------------------------------------------------------


def cells_of(*found: tuple[float, tuple[float, float, float, float]]) -> np.ndarray:
    """Detections of a 4 by 4 map: the given scores and boxes in its first cells, and a score of 0 elsewhere."""
    cells = np.zeros((5, 4, 4), np.float32)
    for index, (score, box) in enumerate(found):
        cells[:, index // 4, index % 4] = score, *box
    return cells


def test_several_cars_are_sorted_by_size():
    small, large = (0.05, 0.5, 0.3, 0.8), (0.45, 0.2, 0.95, 0.9)
    found = find_boxes(cells_of((0.9, small), (0.6, large)), 0.5)
    assert [each.score for each in found] == pytest.approx([0.6, 0.9])
    assert found[0].box == pytest.approx(large) and found[1].box == pytest.approx(small)
    assert find_boxes(cells_of((0.4, small)), 0.5) == []


def test_boxes_of_one_car_are_averaged():
    one = (0.8, (0.1, 0.1, 0.5, 0.5)), (0.4, (0.1, 0.1, 0.53, 0.5)), (0.3, (0.3, 0.1, 0.7, 0.5))
    found = find_boxes(cells_of(*one), 0.5)
    assert len(found) == 1
    assert found[0].box == pytest.approx((0.1, 0.1, 0.51, 0.5))


def test_averaged_boxes_of_one_car_are_one_box():
    one, other = (0.9, (0.1, 0.1, 0.5, 0.5)), (0.6, (0.25, 0.1, 0.65, 0.5))
    assert len(find_boxes(cells_of(one, other), 0.55)) == 2
    between = (0.5, (0.2, 0.1, 0.6, 0.5))  # moves the other box onto the first
    assert [each.score for each in find_boxes(cells_of(one, other, between), 0.55)] == pytest.approx([0.9])


@given(st.integers(0, 2**32 - 1))
def test_no_two_boxes_overlap_by_more_than_half(seed):
    rng = np.random.default_rng(seed)
    corners, sides = rng.uniform(0, 0.5, (2, 30)), rng.uniform(0.2, 0.5, (2, 30))
    cells = np.concatenate([rng.uniform(0, 1, (1, 30)), corners, corners + sides])[:, None].astype(np.float32)
    found = find_boxes(cells, 0.3)
    assert all(iou(one.box, other.box) <= 0.501 for one, other in combinations(found, 2))


def test_boxes_end_at_the_edge_and_are_limited():
    assert find_boxes(cells_of((0.8, (-0.2, 0.1, 0.5, 1.5))), 0.5)[0].box == pytest.approx((0, 0.1, 0.5, 1))
    apart = [(0.5 + index / 100, (index / 10, 0, index / 10 + 0.05, 1)) for index in range(10)]
    assert [each.score for each in find_boxes(cells_of(*apart), 0.5, limit=2)] == pytest.approx([0.59, 0.58])


def test_evaluation_of_known_cases():
    box = (0.1, 0.1, 0.5, 0.5)
    found = [Detection(box, 0.9), Detection((0.6, 0.6, 0.9, 0.9), 0.5)]
    figures = evaluate_detector([found, []], [np.array([box])] * 2)
    assert figures == {"cars": 2, "found": 0.5, "mean_iou": 0.5, "wrong": 0.5}
    assert evaluate_detector([[]], [np.zeros((0, 4))])["wrong"] == 0


def test_the_threshold_separates_cars_from_wrong_boxes():
    box = (0.1, 0.1, 0.5, 0.5)
    found = [[Detection(box, 0.45), Detection((0.6, 0.6, 0.9, 0.9), 0.25)]] * 5 + [[Detection(box, 0.3)]]
    assert 0.25 < choose_threshold(found, [np.array([box])] * 5 + [np.zeros((0, 4))]) <= 0.45


# Training ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained():
    """A detector on the simplest features, the picture itself: eight pixels a cell, and sixteen."""
    rng = np.random.default_rng(0)
    pictures, truth = zip(*(_scene(rng) for _ in range(200)), strict=True)
    return detector.fit(_levels(pictures), truth, epochs=15), rng


def _scene(rng, cars=None):
    count = int(rng.integers(3)) if cars is None else cars
    ground = rng.integers(90, 160, (64, 64, 3)).astype(np.uint8)
    drawn = (draw_car(int(rng.integers(5)), int(rng.integers(99))) for _ in range(count))
    return paste_scene([Car(np.asarray(each), (0.15,) * 4, 1.5) for each in drawn], ground, 64, rng)


def _levels(pictures) -> tuple[torch.Tensor, torch.Tensor]:
    images = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    cells = torch.nn.functional.pixel_unshuffle(images, 8)
    cells = torch.cat([cells, cells.square()], 1)
    return cells, torch.nn.functional.avg_pool2d(cells, 2)


def _found(detector, pictures) -> list[list[Detection]]:
    with torch.no_grad():
        return [find_boxes(cells, 0.4) for cells in detector(*_levels(pictures)).numpy()]


def test_it_finds_the_cars_and_nothing_else(trained):
    detector, rng = trained
    pictures, truth = zip(*(_scene(rng) for _ in range(60)), strict=True)
    figures = evaluate_detector(_found(detector, pictures), truth)
    assert figures["found"] > 0.55
    assert figures["mean_iou"] > 0.45
    assert figures["wrong"] < 0.15
    empty = [_scene(rng, cars=0)[0] for _ in range(20)]
    assert sum(map(bool, _found(detector, empty))) <= 1


def test_a_saved_detector_is_loaded_with_its_threshold(trained, tmp_path):
    detector, rng = trained
    detector.threshold.fill_(0.25)
    again = Detector.load(detector.save(tmp_path))
    assert again.threshold == 0.25
    levels = _levels([_scene(rng)[0]])
    torch.testing.assert_close(again(*levels), detector(*levels), atol=0.02, rtol=0)  # in half precision


@pytest.mark.parametrize(
    ("name", "error", "says"),
    [
        ("scale", OutdatedDetectorError, "earlier version .* run `twincar fit-detector`"),
        ("other", TwinCarError, "cannot be read: run `twincar fit-detector` again"),
    ],
)
def test_a_file_without_the_tensors_is_one_sentence(name, error, says, tmp_path):
    save_file({name: torch.ones(())}, tmp_path / detector.FILE)
    with pytest.raises(error, match=says):
        Detector.load(tmp_path / detector.FILE)


@pytest.mark.parametrize("scenes", [1, 20])
def test_few_scenes_of_a_wide_network_are_enough_to_fit_one(scenes):
    """The features have fewer cells in all than principal components are asked for."""
    levels = torch.rand(scenes, 1024, 4, 4).half(), torch.rand(scenes, 2048, 2, 2).half()
    fitted = detector.fit(levels, [np.array([[0.2, 0.2, 0.8, 0.8]])] * scenes, epochs=1)
    assert fitted(levels[0].float(), levels[1].float()).isfinite().all()
