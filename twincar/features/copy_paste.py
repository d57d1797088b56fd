"""Copy-paste augmentation: cars pasted onto other photos, as training scenes with known boxes.

Pictures of Stanford Cars that are cropped to their boxes have no surroundings to train a detector on. The scenes are
not realistic (the backgrounds need not show a road), but they separate car from background, which a detector needs.
How the edge of a pasted picture is blended varies from car to car, so that the edge itself is no cue (Dwibedi et al.,
"Cut, Paste and Learn", arXiv:1708.01642).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

# Medians over the 8,144 boxes of the devkit's training photos, for pictures whose box is not known.
INSET = (0.030, 0.055)  # the 16 pixels of context around a box, as fractions of the crop's width and height
ASPECT, ASPECT_SPREAD = 1.86, 0.24  # width / height of a box, and the standard deviation of its logarithm
PHOTO_ASPECT = 1.42  # width / height of a photo
MIN_AREA, MAX_AREA = 0.08, 1.0  # area of the box, as a fraction of the photo

# Of scenes with several cars
MIN_SIDE = 0.07  # shortest visible side of a box, as a fraction of the scene
MIN_VISIBLE = 0.5  # least visible fraction of a car behind others or cut by the edge of the scene
ATTEMPTS = 30  # to place a car
GRID = (np.arange(48) + 0.5) / 48  # points of a box, along one axis, of which the visible ones are counted


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


def paste_scene(
    cars: Sequence[Car], background: np.ndarray, size: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Paste any number of cars onto a random crop of a background, squashed to a square.

    The cars stand in a row or anywhere, may be as small as a few cells of the features or larger than the scene, and
    may be partly hidden by another car or cut by the scene's edge. Their boxes span what is visible.

    Args:
        cars: The cars to paste. One for which no place is found is left out.
        background: (H, W, 3) uint8.
        size: Side of the scene, in pixels.
        rng: Source of randomness.

    Returns:
        The scene, (size, size, 3) uint8, and the boxes of its cars, (N, 4) floats as of `copy_paste`.
    """
    brightness = np.mean([car.picture.mean() for car in cars]) if cars else None
    scene = _random_background(background, size, brightness, rng)
    if cars and rng.random() < 0.5:
        scene = _with_colors(scene, cars[0], rng.uniform(0.5, 1))
    places = _place(cars, rng)
    for car, box in places:
        picture, alpha = _warp(_mirrored(car) if rng.random() < 0.5 else car, box, size, *_random_fade(rng))
        scene = scene * (1 - alpha) + picture * alpha
    boxes = [_visible(box, [later for _, later in places[index + 1 :]])[0] for index, (_, box) in enumerate(places)]
    contrast, shift = np.exp(rng.normal(0, 0.2)), rng.normal(0, 12)
    scene = ((scene - 128) * contrast + 128 + shift).clip(0, 255).astype(np.uint8)
    return scene, np.array(boxes).reshape(-1, 4)


def join(scenes: Sequence[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Set scenes of `paste_scene` side by side, as strips of random width, in one scene of the same size."""
    size, ends = len(scenes[0][0]), np.cumsum(rng.uniform(0.6, 1.4, len(scenes)))
    ends = np.concatenate([[0], ends / ends[-1]])
    columns = (ends * size).round().astype(int)
    strips, boxes = [], []
    for (scene, found), left, right in zip(scenes, columns, columns[1:], strict=False):
        strips.append(cv2.resize(scene, (right - left, size), interpolation=cv2.INTER_AREA))
        boxes.append(found * np.tile([(right - left) / size, 1], 2) + np.tile([left / size, 0], 2))
    return np.concatenate(strips, 1), np.concatenate(boxes)


def _place(cars: Sequence[Car], rng: np.random.Generator) -> list[tuple[Car, np.ndarray]]:
    """A box for every car, the farthest first: boxes that end lower in the scene are nearer and hide the others."""
    row = len(cars) > 1 and rng.random() < 0.5
    aspect = np.exp(rng.normal(np.log(PHOTO_ASPECT * len(cars) ** (0.5 if row else 0.15)), 0.25)) if cars else 1.0
    ends = np.cumsum(rng.uniform(0.7, 1.3, len(cars)))
    ends = np.concatenate([[0], ends / ends[-1]]) if cars else ends
    places: list[tuple[Car, np.ndarray]] = []
    for index, car in enumerate(cars):
        for _ in range(ATTEMPTS):
            if row:
                box = _box_in_column(car, ends[index], ends[index + 1], aspect, rng)
            else:
                box = _box_anywhere(car, len(cars), aspect, rng)
            tried = sorted([*places, (car, box)], key=lambda place: place[1][3])
            if all(
                _is_visible(box, [later for _, later in tried[place + 1 :]]) for place, (_, box) in enumerate(tried)
            ):
                places = tried
                break
    return places


def _box_in_column(car: Car, left: float, right: float, aspect: float, rng: np.random.Generator) -> np.ndarray:
    """A box that fills the column from `left` to `right` of a photo of this aspect, more or less."""
    width = (right - left) * rng.uniform(0.6, 1.1)
    height = min(width * aspect / car.aspect, rng.uniform(0.6, 1.1))
    x = (left + right - width) / 2 + (right - left) * rng.uniform(-0.15, 0.15)
    y = (1 - height) * rng.uniform()
    return np.array([x, y, x + width, y + height])


def _box_anywhere(car: Car, count: int, aspect: float, rng: np.random.Generator) -> np.ndarray:
    """A box anywhere in a photo of this aspect; one of several cars is smaller, and some reach over the edge."""
    largest = 1.1 if count == 1 else 0.6 / count**0.4
    area = np.exp(rng.uniform(np.log(0.01), np.log(0.15))) if rng.random() < 0.2 else rng.uniform(0.03, largest)
    sides = np.sqrt(area * np.array([car.aspect / aspect, aspect / car.aspect]))
    if rng.random() < 0.2:  # up to a third of it outside
        start = rng.uniform(-sides / 3, 1 - sides * 2 / 3)
    else:
        sides = np.minimum(sides, 0.98)
        start = (1 - sides) * (rng.uniform(size=2) + rng.uniform(size=2)) / 2
    return np.concatenate([start, start + sides])


def _is_visible(box: np.ndarray, nearer: list[np.ndarray]) -> bool:
    """Whether enough of a box can be seen."""
    seen, fraction = _visible(box, nearer)
    return fraction >= MIN_VISIBLE and min(seen[2] - seen[0], seen[3] - seen[1]) >= MIN_SIDE


def _visible(box: np.ndarray, nearer: list[np.ndarray]) -> tuple[np.ndarray, float]:
    """The part of a box inside the scene and not behind the nearer boxes: its bounding box, and its fraction (0-1)."""
    seen = box.clip(0, 1)
    inside = float((seen[2:] - seen[:2]).prod() / (box[2:] - box[:2]).prod())
    x, y = (seen[axis] + GRID * (seen[axis + 2] - seen[axis]) for axis in (0, 1))
    free = np.ones((len(GRID), len(GRID)), bool)
    for other in nearer:
        free &= ~(((y > other[1]) & (y < other[3]))[:, None] & ((x > other[0]) & (x < other[2])))
    if not free.any():
        return np.zeros(4), 0.0
    for axis, points in ((0, x), (1, y)):
        hit = np.asarray(free.any(axis))
        if not hit[0]:
            seen[axis] = points[hit.argmax()]
        if not hit[-1]:
            seen[axis + 2] = points[len(hit) - 1 - hit[::-1].argmax()]
    return seen, inside * float(free.mean())


def _mirrored(car: Car) -> Car:
    left, top, right, bottom = car.inset
    return Car(np.ascontiguousarray(car.picture[:, ::-1]), (right, top, left, bottom), car.aspect)


def _random_fade(rng: np.random.Generator) -> tuple[float, float]:
    """Where a car's context fades out, in multiples of its width: from the box outwards; and the blur beyond it."""
    return (float(rng.uniform(0.05, 1.0)), 0.0) if rng.random() < 0.5 else (float(rng.uniform(1, 8)), 1.0)


def _random_box(car: Car, rng: np.random.Generator) -> np.ndarray:
    """Draw a box for the car in a photo of usual proportions; boxes near the center are more likely."""
    area, photo_aspect = rng.uniform(MIN_AREA, MAX_AREA), np.exp(rng.normal(np.log(PHOTO_ASPECT), 0.15))
    sides = np.minimum(np.sqrt(area * np.array([car.aspect / photo_aspect, photo_aspect / car.aspect])), 0.98)
    start = (1 - sides) * (rng.uniform(size=2) + rng.uniform(size=2)) / 2
    return np.concatenate([start, start + sides])


def _warp(car: Car, box: np.ndarray, size: int, fade: float = 1.0, blur: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """The car warped into its box, (size, size, 3) float32, and its alpha, (size, size, 1) in 0-1.

    Args:
        car: The car.
        box: Its box in the scene; may reach outside.
        size: Side of the scene, in pixels.
        fade: Distance over which the alpha falls to 0, in multiples of the context around the box. Beyond the context
            its last row or column of pixels is repeated.
        blur: Sigma of a Gaussian that blurs those, in multiples of the context.
    """
    height, width = car.picture.shape[:2]
    left, top, right, bottom = car.inset
    x = (box[2] - box[0]) / (1 - left - right) * size  # sides of the car's whole picture in the scene, in pixels
    y = (box[3] - box[1]) / (1 - top - bottom) * size
    x1, y1 = box[0] * size - left * x, box[1] * size - top * y
    shrink = max(width / x, height / y, 1.0)
    source = cv2.GaussianBlur(car.picture, (0, 0), 0.4 * shrink) if shrink > 1.2 else car.picture
    matrix = np.array([[x / width, 0, x1], [0, y / height, y1]], np.float32)
    picture = cv2.warpAffine(source, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    picture = picture.astype(np.float32)
    positions = np.arange(size) + 0.5

    def alpha(reach: float) -> np.ndarray:
        across = _ramp(positions, box[0] * size, box[2] * size, left * x * reach, right * x * reach)
        down = _ramp(positions, box[1] * size, box[3] * size, top * y * reach, bottom * y * reach)
        return (down[:, None] * across[None, :])[..., None]

    if blur:
        sharp = alpha(1.0)
        smeared = cv2.GaussianBlur(picture, (0, 0), max(blur * (left + right) / 2 * x, 1.0))
        picture = picture * sharp + smeared * (1 - sharp)
    return picture, alpha(fade)


def _ramp(positions: np.ndarray, start: float, end: float, before: float, after: float) -> np.ndarray:
    """Alpha along one axis: 1 inside the box from `start` to `end`, falling to 0 over `before` and `after` it."""
    rise = (positions - start) / max(before, 0.7) + 1
    fall = (end - positions) / max(after, 0.7) + 1
    return np.minimum(rise, fall).clip(0, 1).astype(np.float32)


def _random_background(
    background: np.ndarray, size: int, brightness: float | None, rng: np.random.Generator
) -> np.ndarray:
    """A random crop, mirrored and blurred at random, its brightness moved towards that of the car's picture, if any."""
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
    if brightness is None:
        return ground
    return (ground * np.sqrt(brightness / max(float(ground.mean()), 1.0))).clip(0, 255)


def _with_colors(ground: np.ndarray, car: Car, strength: float) -> np.ndarray:
    """The background in the colors that surround a car: those above it at the top, those below it at the bottom.

    Each channel gets their mean and standard deviation (Reinhard et al., "Color Transfer between Images", 2001, here in
    RGB), so that the pasted picture stands out less.
    """
    height = len(car.picture)
    above = car.picture[: max(round(car.inset[1] * height), 2)]
    below = car.picture[-max(round(car.inset[3] * height), 2) :]
    down = np.linspace(0, 1, len(ground), dtype=np.float32)[:, None, None]
    mean, spread = (
        (1 - down) * measure(above, (0, 1)) + down * measure(below, (0, 1)) for measure in (np.mean, np.std)
    )
    matched = (ground - ground.mean((0, 1))) / np.maximum(ground.std((0, 1)), 1) * spread + mean
    return ((1 - strength) * ground + strength * matched).clip(0, 255).astype(np.float32)
