"""The augmentations by OpenCV do what torchvision's do, which take many times as long on bytes."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tests.conftest import draw_car
from twincar.features import transforms

CAR = functional.gaussian_blur(functional.pil_to_tensor(draw_car(1, size=(97, 80))), [9, 9])  # (3, 80, 97) uint8


def apart(one: torch.Tensor, other: torch.Tensor) -> np.ndarray:
    assert one.dtype == other.dtype == torch.uint8 and one.shape == other.shape
    return np.abs(one.numpy().astype(int) - other.numpy().astype(int))


@pytest.mark.parametrize("angle", [-10.0, 0.0, 3.0, 10.0])
def test_rotation(angle):
    turned = transforms.RandomRotation(10).transform(CAR, {"angle": angle})
    expected = functional.rotate(CAR, angle, v2.InterpolationMode.BILINEAR)
    assert apart(turned, expected)[:, 4:-4, 4:-4].mean() < 2
    assert (apart(turned, CAR).mean() == 0) == (angle == 0)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.5])
def test_blur(sigma):
    blurred = transforms.GaussianBlur(5, (0.1, 1.5)).transform(CAR, {"sigma": [sigma, sigma]})
    assert apart(blurred, functional.gaussian_blur(CAR, [5, 5], [sigma, sigma])).max() <= 1


@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.05, 0.5])
def test_hue(turn):
    turned = transforms.RandomHue(0.5).transform(CAR, {"shift": turn})
    assert apart(turned, functional.adjust_hue(CAR, turn)).mean() < 3
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 8, 8)
    assert transforms.RandomHue(0.5).transform(red, {"shift": 1 / 3})[:, 0, 0].argmax() == 1  # green


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("factors", [(1.1, 0.8, 0.5), (0.8, 1.2, 1.2), (1.0, 1.0, 0.0), (0.9, None, 1.2)])
def test_light(order, factors):
    calm = (CAR * 0.4 + 70).to(torch.uint8)  # nothing leaves 0-255 on the way
    names = [f"{name}_factor" for name in ("brightness", "contrast", "saturation")]
    params = {"fn_idx": torch.tensor([*order, 3]), "hue_factor": None, **dict(zip(names, factors, strict=True))}
    jitter = transforms.ColorJitter(0.3, 0.3, 0.3)
    lit, expected = jitter.transform(calm, params), v2.ColorJitter.transform(jitter, calm, params)
    assert apart(lit, expected).max() <= 3
    assert apart(lit, calm).mean() > 2


def test_what_is_drawn_hangs_on_the_seed_and_stays_in_its_range():
    hue = transforms.RandomHue(0.1)
    turns = [hue.make_params([])["shift"] for _ in range(200)]
    assert -0.1 <= min(turns) < -0.05 and 0.05 < max(turns) <= 0.1
    given = []
    for _ in range(2):
        torch.manual_seed(3)
        given.append(
            v2.Compose([transforms.RandomRotation(10), hue, transforms.GaussianBlur(5, (0.1, 1.5)), transforms.CLAHE()])(CAR)
        )
    assert (given[0] == given[1]).all()
    assert given[0].shape == CAR.shape and given[0].dtype == torch.uint8
