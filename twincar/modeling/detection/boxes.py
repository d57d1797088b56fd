"""Boxes in a photo: as fractions of its sides and in pixels, their area, overlap and margin."""

import numpy as np

from twincar.config import TwinCarError

Box = tuple[float, float, float, float]  # x1, y1, x2, y2 in 0-1 of the photo's width and height
Pixels = tuple[int, int, int, int]  # x1, y1, x2, y2 in a photo, x2 and y2 exclusive

WHOLE: Box = (0.0, 0.0, 1.0, 1.0)
# Context of training pictures around a box, as fractions of its width and height: the medians of 16 pixels over the
# boxes of the devkit's 8,144 training photos.
MARGIN = (0.032, 0.061)


def area(box: Box) -> float:
    """Fraction (0-1) of the photo that a box covers."""
    return max(box[2] - box[0], 0) * max(box[3] - box[1], 0)


def intersection(one: Box, other: Box) -> float:
    """Fraction (0-1) of the photo that two boxes both cover."""
    return area((max(one[0], other[0]), max(one[1], other[1]), min(one[2], other[2]), min(one[3], other[3])))


def iou(one: Box, other: Box) -> float:
    """Intersection over union of two boxes, 0-1."""
    both = intersection(one, other)
    return both / max(area(one) + area(other) - both, 1e-12)


def with_margin(box: Box, margin: tuple[float, float] = MARGIN) -> Box:
    """Extend a box on every side by `margin` times its width and height, clipped to the photo."""
    x, y = margin[0] * (box[2] - box[0]), margin[1] * (box[3] - box[1])
    return max(box[0] - x, 0.0), max(box[1] - y, 0.0), min(box[2] + x, 1.0), min(box[3] + y, 1.0)


def to_pixels(box: Box, size: tuple[int, int]) -> Pixels:
    """Convert fractions to pixels of a photo of size = (width, height): rounded outwards, at least one pixel a side."""
    width, height = size
    x1, y1 = min(int(box[0] * width), width - 1), min(int(box[1] * height), height - 1)
    x2, y2 = min(int(np.ceil(box[2] * width)), width), min(int(np.ceil(box[3] * height)), height)
    return x1, y1, max(x2, x1 + 1), max(y2, y1 + 1)


def to_fractions(box: Pixels, size: tuple[int, int]) -> Box:
    """Convert pixels of a photo of size = (width, height) to fractions.

    Raises:
        TwinCarError: The box is empty or reaches outside the photo.
    """
    x1, y1, x2, y2 = box
    if not (0 <= x1 < x2 <= size[0] and 0 <= y1 < y2 <= size[1]):
        raise TwinCarError(
            f"The box {tuple(box)} is not inside this photo of {size[0]} by {size[1]} pixels: give x1, y1, x2, y2, "
            "with left < right and top < bottom."
        )
    return x1 / size[0], y1 / size[1], x2 / size[0], y2 / size[1]
