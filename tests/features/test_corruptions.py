"""Corruptions of training pictures."""

import numpy as np
import pytest
import torch

from tests.conftest import draw_car
from twincar.features.corruptions import CORRUPTIONS, RandomCorruption


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda corruption: corruption.__name__)
@pytest.mark.parametrize("size", [(96, 64), (160, 160)])
def test_a_corruption_changes_the_picture_and_nothing_else(corruption, size):
    picture = np.asarray(draw_car(1, size=size))
    before = picture.copy()
    changed = 0
    for seed in range(20):
        first, again = (corruption(picture, np.random.default_rng(seed)) for _ in range(2))
        assert first.shape == picture.shape and first.dtype == np.uint8
        assert (first == again).all()
        changed += bool((first != picture).any())
    assert changed >= 15, "the weakest blur is less than a gray level"
    assert (picture == before).all()


def test_what_is_drawn_depends_on_the_generator_of_torch():
    image = torch.from_numpy(np.array(draw_car(0))).permute(2, 0, 1)

    def draw(seed):
        torch.manual_seed(seed)
        return [RandomCorruption()(image) for _ in range(5)]

    assert all(torch.equal(*pair) for pair in zip(draw(1), draw(1), strict=True))
    assert not all(torch.equal(*pair) for pair in zip(draw(1), draw(2), strict=True))
