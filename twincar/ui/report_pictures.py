"""Pictures of `reports/` on the page, each in a light and in a dark version.

The sheets that `twincar report` writes have a white ground, and their title and caption on top, which the page writes
itself. Here the title is cut off, and for the dark version everything that is not a photo changes its colors.
"""

import io
from functools import cache
from html import escape
from pathlib import Path

import gradio as gr
import numpy as np
from gradio.processing_utils import save_bytes_to_cache
from gradio.utils import get_upload_folder
from PIL import Image, ImageColor
from scipy import ndimage

from twincar.plots.palette import DARK_GROUND, DARK_INK, GROUND, INK

WHITE = 232  # lowest value of a pixel of the ground; JPEG changes it a little
PHOTO_SIDE = 90  # pixels: what is smaller in either direction is text
LINE, NOISE = 30, 4  # pixels from one line of the caption to the next, and of a row of JPEG's artefacts, at most


def figure(path: Path, alt: str, owner: gr.HTML) -> str:
    """The picture as HTML, wider than a narrow screen, where it scrolls sideways.

    Args:
        path: A sheet in `reports/`.
        alt: Text alternative.
        owner: The component that shows it: its files are kept as long as the page runs.
    """
    light, dark, (width, height) = _stored(path, path.stat().st_mtime_ns)
    owner.keep_in_cache |= {light, dark}
    pictures = "".join(
        f'<img class="on-{theme}" src="gradio_api/file={escape(file)}" alt="{escape(alt)}" width="{width}" '
        f'height="{height}" loading="lazy">'
        for theme, file in (("light", light), ("dark", dark))
    )
    return f'<div class="sideways" tabindex="0" role="region" aria-label="{escape(alt)}">{pictures}</div>'


@cache
def _stored(path: Path, changed: int) -> tuple[str, str, tuple[int, int]]:
    """The light and the dark version in Gradio's folder, and their size."""
    sheet = without_title(np.asarray(Image.open(path).convert("RGB")))
    files = []
    for pixels in (sheet, for_dark(sheet)):
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, "WEBP", quality=80)
        files.append(save_bytes_to_cache(buffer.getvalue(), f"{path.stem}.webp", get_upload_folder()))
    return files[0], files[1], (sheet.shape[1], sheet.shape[0])


def without_title(sheet: np.ndarray) -> np.ndarray:
    """An (H, W, 3) sheet without its title and the lines of its caption below."""
    ink = (sheet.min(axis=2) < WHITE).any(axis=1)
    edges = np.flatnonzero(np.diff(ink, prepend=False, append=False)).reshape(-1, 2)
    bands = edges[edges[:, 1] - edges[:, 0] > NOISE]  # the title, each line of the caption, and what follows
    line = 1
    while line + 1 < len(bands) and bands[line + 1, 0] - bands[line, 0] <= LINE:
        line += 1
    return sheet[bands[line, 1] + 4 :] if line + 1 < len(bands) else sheet


def for_dark(sheet: np.ndarray) -> np.ndarray:
    """An (H, W, 3) sheet with a dark ground and light text; its photos stay as they are."""
    labels, _ = ndimage.label(sheet.min(axis=2) < WHITE)
    paper = np.ones(sheet.shape[:2], dtype=bool)
    for rows, columns in ndimage.find_objects(labels):
        if rows.stop - rows.start >= PHOTO_SIDE and columns.stop - columns.start >= PHOTO_SIDE:
            paper[rows, columns] = False
    light, dark = (
        [np.array(ImageColor.getrgb(color), dtype=float) for color in pair]
        for pair in ((INK, GROUND), (DARK_INK, DARK_GROUND))
    )
    part = ((sheet.mean(axis=2) - light[0].mean()) / (light[1].mean() - light[0].mean())).clip(0, 1)[..., None]
    return np.where(paper[..., None], dark[0] + part * (dark[1] - dark[0]), sheet).round().astype(np.uint8)
