"""Validation of pictures and boxes, shared by `twincar prepare` and `twincar crop`."""

import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, UnidentifiedImageError

from twincar.data.duplicates import SIDE, thumbnail
from twincar.features.photo import open_photo

MAX_ASPECT = 8.0  # long side / short side; beyond it are banners and broken exports
MAX_OVERHANG = 0.1  # of the picture's side: annotated boxes may reach a little over the edge

T = TypeVar("T")


def read_valid(path: Path, read: Callable[[Image.Image], T]) -> T | str:
    """Open a picture and return `read(image)`, or the reason why the picture cannot be used."""
    try:
        with open_photo(path) as image:
            width, height = image.size
            if max(width, height) > MAX_ASPECT * min(width, height):
                return f"misshapen: {width}x{height} pixels"
            return read(image)
    except UnidentifiedImageError:
        return "unreadable: not a picture"
    except Exception as error:  # PIL's decoders raise anything on broken files
        if not os.path.lexists(path):
            return "missing"
        return f"unreadable: {(str(error).splitlines() or [type(error).__name__])[0]}"


def read_thumbnail(image: Image.Image) -> tuple[tuple[int, int], np.ndarray]:
    """Return an opened image's (width, height) and its thumbnail (see `duplicates.py`).

    All bytes are read, so that truncated files raise; a large JPEG is decoded at 1/8 scale.
    """
    width, height = image.size
    image.draft("RGB", (max(2 * SIDE, width // 8), max(2 * SIDE, height // 8)))
    image.load()
    return (width, height), thumbnail(image)


def clip_box(box: Sequence[float], width: int, height: int, where: str) -> list[float] | str:
    """Clip a box to its picture, or return the reason why it cannot be used.

    Args:
        box: x1, y1, x2, y2 in pixels, 0-based, x2 and y2 exclusive.
        width: Width of the picture.
        height: Height of the picture.
        where: File and row of the annotation, for the reason.
    """
    x1, y1, x2, y2 = box
    text = f"{x1:g},{y1:g},{x2:g},{y2:g}"
    if not all(math.isfinite(v) for v in box):
        return f"box: {text} is not four numbers ({where})"
    if x2 <= x1 or y2 <= y1:
        return f"box: {text} is empty or upside down ({where})"
    over_x, over_y = max(-x1, x2 - width), max(-y1, y2 - height)
    clipped = [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))]
    inside = clipped[2] - clipped[0] >= 1 and clipped[3] - clipped[1] >= 1
    if not inside or over_x > MAX_OVERHANG * width or over_y > MAX_OVERHANG * height:
        return f"box: {text} reaches out of the {width}x{height} picture ({where})"
    return clipped
