"""The OpenCV transforms give the same results as torchvision's, which take many times as long on uint8."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tests.conftest import draw_car
from twincar.features import transforms

CAR = functional.gaussian_blur(functional.pil_to_tensor(draw_car(1, size=(97, 80))), [9, 9])  # (3, 80, 97) uint8


def difference(first: torch.Tensor, second: torch.Tensor) -> np.ndarray:
    assert first.dtype == second.dtype == torch.uint8 and first.shape == second.shape
    return np.abs(first.numpy().astype(int) - second.numpy().astype(int))


@pytest.mark.parametrize("angle", [-10.0, 0.0, 3.0, 10.0])
def test_rotation(angle):
    result = transforms.RandomRotation(10).transform(CAR, {"angle": angle})
    expected = functional.rotate(CAR, angle, v2.InterpolationMode.BILINEAR)
    assert difference(result, expected)[:, 4:-4, 4:-4].mean() < 2
    assert (difference(result, CAR).mean() == 0) == (angle == 0)


@pytest.mark.parametrize("sigma", [0.1, 0.7, 1.5])
def test_blur(sigma):
    blurred = transforms.GaussianBlur(5, (0.1, 1.5)).transform(CAR, {"sigma": [sigma, sigma]})
    assert difference(blurred, functional.gaussian_blur(CAR, [5, 5], [sigma, sigma])).max() <= 1


@pytest.mark.parametrize("shift", [-0.1, 0.0, 0.05, 0.5])
def test_hue(shift):
    result = transforms.RandomHue(0.5).transform(CAR, {"shift": shift})
    assert difference(result, functional.adjust_hue(CAR, shift)).mean() < 3
    red = torch.tensor([255, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 8, 8)
    assert transforms.RandomHue(0.5).transform(red, {"shift": 1 / 3})[:, 0, 0].argmax() == 1  # green


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 1, 0), (1, 0, 2)])
@pytest.mark.parametrize("factors", [(1.1, 0.8, 0.5), (0.8, 1.2, 1.2), (1.0, 1.0, 0.0), (0.9, None, 1.2)])
def test_color_jitter(order, factors):
    image = (CAR * 0.4 + 70).to(torch.uint8)  # no intermediate value leaves 0-255
    names = [f"{name}_factor" for name in ("brightness", "contrast", "saturation")]
    params = {"fn_idx": torch.tensor([*order, 3]), "hue_factor": None, **dict(zip(names, factors, strict=True))}
    jitter = transforms.ColorJitter(0.3, 0.3, 0.3)
    result, expected = jitter.transform(image, params), v2.ColorJitter.transform(jitter, image, params)
    assert difference(result, expected).max() <= 3
    assert difference(result, image).mean() > 2


def test_random_parameters_depend_on_the_seed_and_stay_in_range():
    hue = transforms.RandomHue(0.1)
    shifts = [hue.make_params([])["shift"] for _ in range(200)]
    assert -0.1 <= min(shifts) < -0.05 and 0.05 < max(shifts) <= 0.1
    results = []
    for _ in range(2):
        torch.manual_seed(3)
        results.append(
            v2.Compose(
                [transforms.RandomRotation(10), hue, transforms.GaussianBlur(5, (0.1, 1.5)), transforms.CLAHE()]
            )(CAR)
        )
    assert (results[0] == results[1]).all()
    assert results[0].shape == CAR.shape and results[0].dtype == torch.uint8


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 900), st.integers(1, 900), st.sampled_from([32, 65, 208]), st.integers(0, 9))
def test_squash_gives_what_pillow_gives(width, height, size, seed):
    """Other programs that load the model resize with Pillow; `calling.md` promises them the same answer."""
    rng = np.random.default_rng(seed)
    image = Image.fromarray(rng.integers(0, 256, (height, width, 3), np.uint8))
    expected = np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, reducing_gap=3.0)).astype(int)
    found = transforms.squash(image, size)
    assert found.shape == (size, size, 3) and found.dtype == np.uint8 and found.flags.c_contiguous
    assert np.abs(found - expected).max() <= 2
