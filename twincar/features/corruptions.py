"""Random image corruptions for training: noise, blur, low resolution, JPEG, darkness, haze, rain and snow.

They stand for what phones do to photos at dusk, in motion and in messengers. They follow the kinds of Hendrycks &
Dietterich (ICLR 2019, arXiv:1903.12261), but with random strengths; `benchmarks/corruptions.py` tests with other,
fixed ones. All work on (H, W, 3) uint8 RGB and take their random numbers from `rng`; lengths are fractions of the
width, so that the strength does not depend on the size.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

Corruption = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise with a standard deviation of 3 to 65 gray levels, as fine as the pixels or twice as coarse."""
    return _add_noise(image.astype(np.float32), np.exp(rng.uniform(np.log(3), np.log(65))), rng)


def blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaussian blur with a standard deviation of 0.3 % to 1.7 % of the width."""
    return cv2.GaussianBlur(image, (0, 0), rng.uniform(0.003, 0.017) * image.shape[1])


def motion_blur(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blur along a line of 2 % to 11 % of the width, in any direction but mostly near the horizontal."""
    kernel = _line(max(rng.uniform(0.02, 0.11) * image.shape[1], 2.0), rng.normal(0, np.pi / 6))
    return cv2.filter2D(image, -1, kernel / kernel.sum(), borderType=cv2.BORDER_REFLECT)


def low_resolution(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Downsampling to 12 % to 60 % of the size and back, with one of four interpolations."""
    height, width = image.shape[:2]
    scale = np.exp(rng.uniform(np.log(0.12), np.log(0.6)))
    small = max(round(scale * width), 1), max(round(scale * height), 1)
    ways = (cv2.INTER_NEAREST, cv2.INTER_LINEAR, cv2.INTER_CUBIC, cv2.INTER_LANCZOS4)
    return cv2.resize(
        cv2.resize(image, small, interpolation=cv2.INTER_AREA), (width, height), interpolation=int(rng.choice(ways))
    )


def jpeg(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """JPEG compression with quality 5 to 60."""
    _, code = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(5, 61))])
    decoded = cv2.imdecode(code, cv2.IMREAD_COLOR)
    assert decoded is not None  # it was encoded just before
    return decoded


def darkness(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """5 % to 70 % of the light, at random with a gamma curve or a color cast, and sensor noise of up to 12 levels."""
    light = np.exp(rng.uniform(np.log(0.05), np.log(0.7)))
    dark = image.astype(np.float32) / 255
    if rng.random() < 0.5:
        dark **= rng.uniform(1, 1.8)
    if rng.random() < 0.5:
        dark *= rng.uniform(0.75, 1, 3).astype(np.float32)
    return _add_noise(255 * light * dark, rng.uniform(0, 12) * np.sqrt(light), rng)


def haze(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A veil of one bright color over the picture, 15 % to 75 % opaque, at random stronger on one side."""
    height, width = image.shape[:2]
    opacity = np.full((height, width), rng.uniform(0.15, 0.75), np.float32)
    if rng.random() < 0.5:
        angle, y, x = rng.uniform(0, 2 * np.pi), *np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
        opacity *= (1 + 0.5 * (np.cos(angle) * x + np.sin(angle) * y)).clip(0, 1.3)
    opacity = opacity.clip(0, 0.9)[..., None]
    return _bytes(image * (1 - opacity) + rng.uniform(170, 255) * opacity)


def precipitation(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Rain or snow: bright streaks, 1 % to 14 % of the width long and one or two pixels wide, mostly near the vertical.

    Those of one pixel cover about 1 % to 50 % of the picture. Random pixels of random strength are blurred along a
    line, as in the snow of ImageNet-C.
    """
    height, width = image.shape[:2]
    length = np.exp(rng.uniform(np.log(0.01), np.log(0.14))) * width
    share = np.exp(rng.uniform(np.log(0.01), np.log(0.5))) / max(length, 1)  # of pixels with a streak's center
    drops = rng.random((height, width), dtype=np.float32)
    drops = np.where(drops < share, 0.4 + 0.6 * drops / np.float32(share), np.float32(0))
    kernel = _line(length, rng.normal(np.pi / 2, np.pi / 10), thickness=int(rng.integers(1, 3)))
    streaks = cv2.filter2D(drops, -1, kernel, borderType=cv2.BORDER_REFLECT)
    streaks = cv2.GaussianBlur(streaks.clip(0, 1), (0, 0), rng.uniform(0.001, 0.005) * width)
    opacity = rng.uniform(0.4, 0.9) * streaks[..., None]
    return _bytes(image * (1 - opacity) + rng.uniform(180, 255) * opacity)


CORRUPTIONS: tuple[Corruption, ...] = (
    noise, blur, motion_blur, low_resolution, jpeg, darkness, haze, precipitation,
)  # fmt: skip


class RandomCorruption(v2.Transform):
    """One of the corruptions, chosen at random, on (3, H, W) uint8; its randomness comes from torch's generator."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        """Draw the corruption and the seed of its random numbers."""
        index, seed = torch.randint(len(CORRUPTIONS), ()), torch.randint(2**31, ())
        return {"corruption": CORRUPTIONS[int(index)], "seed": int(seed)}

    def transform(self, inpt: Tensor, params: dict[str, Any]) -> Tensor:
        """Corrupt a (3, H, W) uint8 image."""
        image = np.ascontiguousarray(inpt.permute(1, 2, 0).numpy())
        return torch.from_numpy(params["corruption"](image, np.random.default_rng(params["seed"]))).permute(2, 0, 1)


def _add_noise(image: np.ndarray, deviation: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise on a float32 image, per pixel or, one time in three, per block of two by two pixels."""
    height, width = image.shape[:2]
    if rng.random() < 1 / 3:
        grain = rng.standard_normal((-(-height // 2), -(-width // 2), 3), dtype=np.float32)
        grain = grain.repeat(2, 0).repeat(2, 1)[:height, :width]
    else:
        grain = rng.standard_normal(image.shape, dtype=np.float32)
    return _bytes(image + deviation * grain)


def _line(length: float, angle: float, thickness: int = 1) -> np.ndarray:
    """A convolution kernel that is 1 on a line through its center and 0 elsewhere; the angle is in radians."""
    side = int(np.ceil(length)) | 1  # odd, so that the kernel has a center
    kernel = np.zeros((side, side), np.float32)
    half = np.array([np.cos(angle), np.sin(angle)]) * (length - 1) / 2
    start, end = (np.round((side - 1) / 2 + sign * half).astype(int) for sign in (-1, 1))
    cv2.line(kernel, [int(v) for v in start], [int(v) for v in end], 1.0, thickness)
    return kernel


def _bytes(image: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
