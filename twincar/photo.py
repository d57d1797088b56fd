"""A stranger's file -> an upright RGB picture, or one sentence about why not. Uploads are hostile until decoded.

Without torch, so that the command line answers quickly. Tensors are made in `features.py`.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from twincar.config import BOX_MARGIN, TwinCarError

MAX_PIXELS = 100_000_000  # 100 megapixels: above any camera's; decoded that is 300 MB
MIN_SIDE = 16  # pixels; below this nobody could tell a car either

Photo = str | Path | bytes | Image.Image | np.ndarray


class PhotoError(TwinCarError):
    """A photo that cannot be answered; the text is one sentence for the person who sent it."""


def load_photo(photo: Photo, box=None, side: int | None = None) -> Image.Image:
    """Read a path, the bytes of a file, a PIL image or an array and return it upright, in 8-bit RGB, at full size.

    box : (x1, y1, x2, y2) to cut out first, as of `crop_box`. It counts in the picture as it is stored, before EXIF
        turns it upright: so do annotations.
    side : give the picture at a whole fraction of its size, such that both sides still have so many pixels; by default
        at full size. A JPEG is then decoded at 1/2, 1/4 or 1/8, in as small a part of the time, where there is no box.

    Arrays are (H, W), (H, W, 3) or (H, W, 4), integers in 0-255 or floats in 0-1. EXIF rotation is applied,
    transparency is laid on white, 16 bits are scaled to 8, and of an animation or a stack the first picture counts.

    Raises PhotoError for what is no picture, is broken, or has too many or too few pixels.
    """
    try:
        with warnings.catch_warnings():  # PIL warns above its own limit; ours is checked before anything is decoded
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = _open(photo)
            _check_size(image)
            if side and box is None and image is not photo:
                image.draft(None, (side, side))
            image.load()
            image = _first_frame(image)
            if box is not None:
                image = crop_box(image, box)
            image = _to_rgb(ImageOps.exif_transpose(image))
            return image.reduce(factor) if side and (factor := min(image.size) // side) > 1 else image
    except PhotoError:
        raise
    except FileNotFoundError as error:
        raise PhotoError(f"There is no file {photo}.") from error
    except UnidentifiedImageError as error:
        raise PhotoError("This file is not a picture that can be read: send a JPEG, PNG or WebP photo.") from error
    except Image.DecompressionBombError as error:
        raise PhotoError(_too_large()) from error
    except MemoryError as error:
        raise PhotoError("This picture needs more memory than there is: send a smaller one.") from error
    except Exception as error:  # PIL's decoders raise anything from SyntaxError to struct.error on broken files
        raise PhotoError(f"This picture is broken and cannot be read to its end ({error}).") from error


def crop_box(image: Image.Image, box, margin: int = BOX_MARGIN) -> Image.Image:
    """Cut out box = (x1, y1, x2, y2) in pixels, the far edges exclusive, with `margin` pixels of context.

    A box with a missing coordinate (the table's NaN) leaves the picture whole.
    """
    if any(value is None or value != value for value in box):
        return image
    x1, y1, x2, y2 = (int(value) for value in box)
    return image.crop(
        (max(x1 - margin, 0), max(y1 - margin, 0), min(x2 + margin, image.width), min(y2 + margin, image.height))
    )


def _open(photo: Photo) -> Image.Image:
    if isinstance(photo, Image.Image):
        return photo
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    if isinstance(photo, (bytes, bytearray, memoryview)):
        if not len(photo):
            raise PhotoError("This file is empty.")
        return Image.open(io.BytesIO(photo))
    if isinstance(photo, (str, Path)):
        path = Path(photo)
        if path.is_dir():
            raise PhotoError(f"{path} is a folder, not a photo.")
        if path.is_file() and not path.stat().st_size:
            raise PhotoError("This file is empty.")
        return Image.open(path)
    raise PhotoError(f"A photo is a path, bytes, a PIL image or an array, not {type(photo).__name__}.")


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise PhotoError(f"An array of shape {array.shape} is no picture: (H, W), (H, W, 3) or (H, W, 4) is.")
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.dtype == bool:
        array = array * np.uint8(255)
    elif np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
            raise PhotoError("An array of floats must hold finite values in 0-1.")
        array = (array * 255).round().astype(np.uint8)
    elif array.dtype == np.uint16:
        array = (array >> 8).astype(np.uint8)
    elif array.dtype != np.uint8:
        if array.min() < 0 or array.max() > 255:
            raise PhotoError("An array of integers must hold values in 0-255.")
        array = array.astype(np.uint8)
    return Image.fromarray(array)


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise PhotoError(_too_large())
    if min(image.size) < MIN_SIDE:
        raise PhotoError(
            f"This picture is only {image.width} by {image.height} pixels: both sides need {MIN_SIDE} or more."
        )


def _too_large() -> str:
    return f"This picture has more than {MAX_PIXELS // 1_000_000} megapixels: send a smaller one."


def _first_frame(image: Image.Image) -> Image.Image:
    if getattr(image, "n_frames", 1) > 1:
        image.seek(0)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):  # 16-bit grey, as I;16 or widened to I
        values = np.asarray(image).astype(np.float32)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        return Image.fromarray((values.clip(0, top) * (255.0 / top)).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        top = max(float(values.max(initial=0)), 1e-9)
        scale = 255.0 if top <= 1 else 255.0 / max(top, 255.0)
        return Image.fromarray((values.clip(0, None) * scale).clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
