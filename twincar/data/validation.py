"""Which pictures and boxes can be used: one set of rules for `twincar prepare` and `twincar crop`."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from twincar.data.duplicates import SIDE, thumbnail

MIN_SIDE = 16  # pixels: less shows no car
MAX_ASPECT = 8.0  # long side / short side: a banner or a broken export
MAX_OVERHANG = 0.1  # of the picture's side: annotators draw boxes a little over the edge, not far

T = TypeVar("T")


def read_sound(path: Path, read: Callable[[Image.Image], T]) -> T | str:
    """read(the opened picture) of a sound picture, else why it is none."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
                return f"unreadable: {width}x{height} pixels, more than {Image.MAX_IMAGE_PIXELS:,}"
            if min(width, height) < MIN_SIDE or max(width, height) > MAX_ASPECT * min(width, height):
                return f"misshapen: {width}x{height} pixels"
            return read(image)
    except FileNotFoundError:
        return "missing"
    except UnidentifiedImageError:
        return "unreadable: not a picture"
    except Exception as error:
        return f"unreadable: {(str(error).splitlines() or [type(error).__name__])[0]}"


def read_thumbnail(image: Image.Image) -> tuple[tuple[int, int], np.ndarray]:
    """(width, height) and a thumbnail (`duplicates.py`), after reading every byte; of a large JPEG one pixel in 64 is
    decoded."""
    size = image.size
    image.draft("RGB", tuple(max(2 * SIDE, side // 8) for side in size))
    image.load()
    return size, thumbnail(image)


def clip_box(box: Sequence[float], width: int, height: int, where: str) -> list[float] | str:
    """The box inside the picture (0-based pixels, x2 and y2 exclusive), else why it is no box; `where` it was found."""
    x1, y1, x2, y2 = box
    shown = f"{x1:g},{y1:g},{x2:g},{y2:g}"
    if not all(math.isfinite(v) for v in box):
        return f"box: {shown} is not four numbers ({where})"
    if x2 <= x1 or y2 <= y1:
        return f"box: {shown} is empty or upside down ({where})"
    over_x, over_y = max(-x1, x2 - width), max(-y1, y2 - height)
    clipped = [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
    inside = clipped[2] - clipped[0] >= 1 and clipped[3] - clipped[1] >= 1
    if not inside or over_x > MAX_OVERHANG * width or over_y > MAX_OVERHANG * height:
        return f"box: {shown} reaches out of the {width}x{height} picture ({where})"
    return clipped
