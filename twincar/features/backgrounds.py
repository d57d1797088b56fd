"""Photos without cars: backgrounds of copy-paste scenes and examples of what is no car."""

from pathlib import Path

import numpy as np

from twincar.config import IMAGE_SUFFIXES, TwinCarError
from twincar.features.photo import PhotoError, load_photo

MIN_BACKGROUNDS = 20  # photos without cars
MAX_SIDE = 640  # pixels; photos without cars need be no larger


def load_backgrounds(folder: str | Path) -> list[np.ndarray]:
    """Read all photos below a folder, in order of their names, as (H, W, 3) uint8 with sides of at most MAX_SIDE.

    Photos that cannot be read are left out.

    Raises:
        TwinCarError: Fewer than MIN_BACKGROUNDS can be read.
    """
    photos = []
    for file in sorted(file for file in Path(folder).rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES):
        try:
            photo = load_photo(file)
        except PhotoError:
            continue
        photo.thumbnail((MAX_SIDE, MAX_SIDE))
        photos.append(np.asarray(photo))
    if len(photos) < MIN_BACKGROUNDS:
        raise TwinCarError(
            f"{folder} has {len(photos)} readable photos: at least {MIN_BACKGROUNDS} photos without cars are needed."
        )
    return photos
