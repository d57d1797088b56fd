"""Copy-paste augmentation: cars pasted onto other photos, as training scenes with known boxes.

Pictures of Stanford Cars that are cropped to their boxes have no surroundings to train a detector on. The scenes are
not realistic (the backgrounds need not show a road), but they separate car from background, which a detector needs.
"""

from dataclasses import dataclass

import cv2
import numpy as np

# Medians over the 8,144 boxes of the devkit's training photos, for pictures whose box is not known.
INSET = (0.030, 0.055)  # the 16 pixels of context around a box, as fractions of the crop's width and height
ASPECT, ASPECT_SPREAD = 1.86, 0.24  # width / height of a box, and the standard deviation of its logarithm
PHOTO_ASPECT = 1.42  # width / height of a photo
MIN_AREA, MAX_AREA = 0.08, 1.0  # area of the box, as a fraction of the photo


@dataclass(frozen=True)
class Car:
    """A picture of one car.

    Attributes:
        picture: (H, W, 3) uint8, possibly squashed to a square.
        inset: Distance of the box from the left, top, right and bottom edge, as fractions of the picture.
        aspect: Width / height of the box before squashing.
    """

    picture: np.ndarray
    inset: tuple[float, float, float, float]
    aspect: float


def copy_paste(car: Car, background: np.ndarray, size: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Paste a car at a random position onto a random crop of a background, squashed to a square.

    The context around the car fades into the background, so that the box has no sharp edge.

    Args:
        car: The car to paste.
        background: (H, W, 3) uint8.
        size: Side of the scene, in pixels.
        rng: Source of randomness.

    Returns:
        The scene, (size, size, 3) uint8, and the car's box, (4,) floats x1, y1, x2, y2 as fractions of the scene.
    """
    box = _random_box(car, rng)
    picture, alpha = _warp(car, box, size)
    ground = _random_background(background, size, picture.mean(), rng)
    scene = (ground * (1 - alpha) + picture * alpha).astype(np.uint8)
    if rng.random() < 0.5:
        scene, box = np.ascontiguousarray(scene[:, ::-1]), np.array([1 - box[2], box[1], 1 - box[0], box[3]])
    return scene, box


def _random_box(car: Car, rng: np.random.Generator) -> np.ndarray:
    """Draw a box for the car in a photo of usual proportions; boxes near the center are more likely."""
    area, photo_aspect = rng.uniform(MIN_AREA, MAX_AREA), np.exp(rng.normal(np.log(PHOTO_ASPECT), 0.15))
    sides = np.minimum(np.sqrt(area * np.array([car.aspect / photo_aspect, photo_aspect / car.aspect])), 0.98)
    start = (1 - sides) * (rng.uniform(size=2) + rng.uniform(size=2)) / 2
    return np.concatenate([start, start + sides])


def _warp(car: Car, box: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The car warped into its box, (size, size, 3) float32, and its alpha, (size, size, 1) in 0-1."""
    height, width = car.picture.shape[:2]
    left, top, right, bottom = car.inset
    x = (box[2] - box[0]) / (1 - left - right) * size  # sides of the car's whole picture in the scene, in pixels
    y = (box[3] - box[1]) / (1 - top - bottom) * size
    x1, y1 = box[0] * size - left * x, box[1] * size - top * y
    shrink = max(width / x, height / y, 1.0)
    source = cv2.GaussianBlur(car.picture, (0, 0), 0.4 * shrink) if shrink > 1.2 else car.picture
    matrix = np.array([[x / width, 0, x1], [0, y / height, y1]], np.float32)
    picture = cv2.warpAffine(source, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    positions = np.arange(size) + 0.5
    across = _ramp(positions, x1, x1 + x, left * x, right * x)
    down = _ramp(positions, y1, y1 + y, top * y, bottom * y)
    return picture.astype(np.float32), (down[:, None] * across[None, :])[..., None]


def _ramp(positions: np.ndarray, start: float, end: float, before: float, after: float) -> np.ndarray:
    """Alpha along one axis: 0 at the edges of the car's picture, 1 inside its box."""
    rise, fall = (positions - start) / max(before, 0.7), (end - positions) / max(after, 0.7)
    return np.minimum(rise, fall).clip(0, 1).astype(np.float32)


def _random_background(background: np.ndarray, size: int, brightness: float, rng: np.random.Generator) -> np.ndarray:
    """A random crop, mirrored and blurred at random, its brightness moved towards that of the car's picture."""
    height, width = background.shape[:2]
    side = rng.uniform(0.5, 1)
    high, wide = max(int(side * height), 1), max(int(side * width), 1)
    y, x = rng.integers(height - high + 1), rng.integers(width - wide + 1)
    ground = cv2.resize(background[y : y + high, x : x + wide], (size, size), interpolation=cv2.INTER_AREA)
    if rng.random() < 0.5:
        ground = ground[:, ::-1]
    if rng.random() < 0.5:
        ground = cv2.GaussianBlur(np.ascontiguousarray(ground), (0, 0), rng.uniform(0.5, 6))
    ground = ground.astype(np.float32)
    return (ground * np.sqrt(brightness / max(float(ground.mean()), 1.0))).clip(0, 255)
