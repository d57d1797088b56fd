"""Lays cars on other photos: pictures in which it is known where the car is, for whatever learns to find it.

Stanford Cars cut to their boxes show no surroundings, and the photos to lay them on show no road. What comes out fools
nobody, but cuts the one tie that matters: what is car and what is not.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# Medians over the 8,144 boxes of the devkit's training photos, for pictures that were cut and squashed long ago.
INSET = (0.030, 0.055)  # of the 16 pixels around a box, as shares of the cut picture's width and height
ASPECT, ASPECT_SPREAD = 1.86, 0.24  # width over height of a box, and the deviation of its logarithm
FRAME = 1.42  # width over height of a camera's photo, likewise
SMALLEST, LARGEST = 0.08, 1.0  # share of the photo that the box takes


@dataclass(frozen=True)
class Car:
    """A picture of one car, (H, W, 3) uint8 and perhaps squashed.

    inset : the box's distance from the left, top, right and bottom edge, in 0-1 of the picture.
    aspect : the box's true width over its height.
    """

    picture: np.ndarray
    inset: tuple[float, float, float, float]
    aspect: float


def copy_paste(car: Car, background: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Lay `car` somewhere on a part of `background`, (H, W, 3) uint8, and squash all of it to a square.

    The context around the car fades into the background, so that no sharp edge gives the box away.

    Returns the (size, size, 3) uint8 picture and the box, (4,) floats x1, y1, x2, y2 in 0-1 of it.
    """
    box = _place(car, rng)
    picture, opacity = _warp(car, box, size)
    ground = _ground(background, size, picture.mean(), rng)
    mixed = (ground * (1 - opacity) + picture * opacity).astype(np.uint8)
    if rng.random() < 0.5:
        mixed, box = np.ascontiguousarray(mixed[:, ::-1]), np.array([1 - box[2], box[1], 1 - box[0], box[3]])
    return mixed, box


def _place(car: Car, rng: np.random.Generator) -> np.ndarray:
    """A box for the car in a photo of a camera's proportions, rather in its middle than at its rim."""
    share, frame = rng.uniform(SMALLEST, LARGEST), np.exp(rng.normal(np.log(FRAME), 0.15))
    sides = np.minimum(np.sqrt(share * np.array([car.aspect / frame, frame / car.aspect])), 0.98)
    start = (1 - sides) * (rng.uniform(size=2) + rng.uniform(size=2)) / 2
    return np.concatenate([start, start + sides])


def _warp(car: Car, box: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The car in its place in a (size, size, 3) picture, and how opaque it is there, (size, size, 1) in 0-1."""
    height, width = car.picture.shape[:2]
    left, top, right, bottom = car.inset
    x = (box[2] - box[0]) / (1 - left - right) * size  # sides of the whole picture of the car, in pixels
    y = (box[3] - box[1]) / (1 - top - bottom) * size
    x1, y1 = box[0] * size - left * x, box[1] * size - top * y
    shrink = max(width / x, height / y, 1.0)
    source = cv2.GaussianBlur(car.picture, (0, 0), 0.4 * shrink) if shrink > 1.2 else car.picture
    move = np.float32([[x / width, 0, x1], [0, y / height, y1]])
    picture = cv2.warpAffine(source, move, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    places = np.arange(size) + 0.5
    across = _fade(places, x1, x1 + x, left * x, right * x)
    down = _fade(places, y1, y1 + y, top * y, bottom * y)
    return picture.astype(np.float32), (down[:, None] * across[None, :])[..., None]


def _fade(places: np.ndarray, start: float, end: float, before: float, after: float) -> np.ndarray:
    """From 0 at the rim of the picture of the car to 1 at its box."""
    rise, fall = (places - start) / max(before, 0.7), (end - places) / max(after, 0.7)
    return np.minimum(rise, fall).clip(0, 1).astype(np.float32)


def _ground(background: np.ndarray, size: int, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """Some part of the background, now and then out of focus, about as bright as the car's picture."""
    height, width = background.shape[:2]
    part = rng.uniform(0.5, 1)
    high, wide = max(int(part * height), 1), max(int(part * width), 1)
    y, x = rng.integers(height - high + 1), rng.integers(width - wide + 1)
    ground = cv2.resize(background[y : y + high, x : x + wide], (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        ground = ground[:, ::-1]
    if rng.random() < 0.5:
        ground = cv2.GaussianBlur(np.ascontiguousarray(ground), (0, 0), rng.uniform(0.5, 6))
    ground = ground.astype(np.float32)
    return (ground * np.sqrt(brightness / max(float(ground.mean()), 1.0))).clip(0, 255)
