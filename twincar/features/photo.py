"""Load photos from untrusted files: upright RGB images, or an error of one sentence.

Does not import torch, so that the command line starts fast. Tensors are made in `transforms.py`.
"""

import io
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pi_heif
from PIL import Image, UnidentifiedImageError

from twincar.config import BOX_MARGIN, FORMATS, TwinCarError
from twincar.text import display_name

MAX_PIXELS = 100_000_000  # more than nearly any camera's; 400 MB when decoded
MIN_SIDE = 16  # pixels; a smaller picture shows no recognizable car
MAX_SCANS = 100  # of a JPEG; a progressive JPEG has about ten, and decoding each is a pass over all pixels

READABLE = "JPEG, PNG, WebP, AVIF, HEIC, GIF, TIFF or BMP"  # config.FORMATS as people write them

MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")  # a JPEG marker; scan data has only the excluded bytes after \xff
ORIENTATION = 0x0112  # EXIF tag
FULL_SIZE = "full_size"  # key in `info` of an image that `load_photo` reduced: its full size
EXIF_TRANSPOSE = {  # EXIF orientation -> the operation that turns the image upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Photo = str | Path | bytes | Image.Image | np.ndarray

pi_heif.register_heif_opener(thumbnails=False)  # HEIC, the iPhone's format; Pillow itself reads AVIF


class PhotoError(TwinCarError):
    """A photo that cannot be used; the message is one sentence for the user."""


class NotAPictureError(PhotoError):
    """A file that is not a picture, or has none of the formats that are read."""


class TooLargeError(PhotoError):
    """A file with too many bytes, or a picture with too many pixels."""


def load_photo(photo: Photo, box: Sequence[float] | None = None, side: int | None = None) -> Image.Image:
    """Load a photo as an upright 8-bit RGB image.

    EXIF orientation is applied where it can be read, transparency is composited on white, 16 bits are scaled to 8, and
    of an animation or a multi-page file the first image is used.

    Args:
        photo: A path or the bytes of a file of one of `config.FORMATS`, a PIL image, or an array: (H, W), (H, W, 3) or
            (H, W, 4), integers in 0-255 or floats in 0-1.
        box: Box to crop first, see `crop_box`. It refers to the stored pixels, before the EXIF orientation is applied,
            as annotations do.
        side: Reduce the image by a whole factor, such that both sides keep at least this many pixels; by default it is
            loaded at full size. Without a box, a JPEG is decoded at 1/2, 1/4 or 1/8 scale, which is faster.

    Returns:
        The image. Reduced without a box, its `info` holds the full size as FULL_SIZE; otherwise `info` is empty.

    Raises:
        PhotoError: The file is not an image, is broken, or has too many or too few pixels.
    """
    try:
        with warnings.catch_warnings():  # PIL's warnings about the file; real problems raise errors
            warnings.simplefilter("ignore")
            return _load(photo, box, side)
    except PhotoError as error:
        failure = type(error)(str(error))
    except UnidentifiedImageError:
        failure = NotAPictureError(f"This file is not a picture that can be read: send a photo as {READABLE}.")
    except Image.DecompressionBombError:
        failure = TooLargeError(_too_large())
    except MemoryError:
        failure = TooLargeError("This picture needs more memory than is available: send a smaller one.")
    except Exception:  # PIL's decoders raise anything from SyntaxError to struct.error on broken files
        failure = PhotoError("This file is damaged. Try saving or sending it again.")
    raise failure  # a new one, without `from`: batches keep errors, and a traceback keeps the decoder's buffers


def crop_box(image: Image.Image, box: Sequence[float], margin: int = BOX_MARGIN) -> Image.Image:
    """Crop an image to a box with context around it.

    Args:
        image: The image.
        box: x1, y1, x2, y2 in pixels, x2 and y2 exclusive. If one is None or NaN, the image is returned as it is.
        margin: Pixels of context on each side, as far as the image reaches.
    """
    if any(value is None or value != value for value in box):
        return image
    x1, y1, x2, y2 = (int(value) for value in box)
    return image.crop(
        (max(x1 - margin, 0), max(y1 - margin, 0), min(x2 + margin, image.width), min(y2 + margin, image.height))
    )


def open_photo(photo: Photo) -> Image.Image:
    """Open a photo without decoding it, and check its size. Every file that is not ours is opened here.

    Args:
        photo: As for `load_photo`.

    Raises:
        PhotoError: It is not a file, is empty, or has too many or too few pixels.
        Exception: What Pillow raises on files that it cannot open; `load_photo` turns it into a PhotoError.
    """
    opened = _open(photo)
    _check_size(opened)
    return opened


def _load(photo: Photo, box: Sequence[float] | None, side: int | None) -> Image.Image:
    opened = open_photo(photo)
    full = opened.size
    if side and box is None and opened is not photo:
        opened.draft(None, (side, side))
    if opened.tell():  # not `n_frames`, which decodes a whole animation to count
        opened.seek(0)
    opened.load()
    image = opened if box is None else crop_box(opened, box)
    image = to_rgb(image)
    if (method := EXIF_TRANSPOSE.get(_orientation(opened))) is not None:
        image = image.transpose(method)
    if image is opened:  # it may be the caller's image, or keep its file open
        image = image.copy()
    if side and (factor := min(image.size) // side) > 1:
        image = image.reduce(factor)
    full = full if (full[0] > full[1]) == (image.width > image.height) else full[::-1]  # of the upright image
    reduced = box is None and image.size != full
    # Without EXIF: a saved copy must not be rotated again, and must not reveal where it was taken.
    image.info = {FULL_SIZE: full} if reduced else {}
    return image


def _open(photo: Photo) -> Image.Image:
    if isinstance(photo, Image.Image):
        return photo
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return _open_file(io.BytesIO(photo))
    if isinstance(photo, (str, Path)):
        return _open_file(_open_path(Path(photo)))
    raise PhotoError(f"A photo is a path, bytes, a PIL image or an array, not {type(photo).__name__}.")


def _open_path(path: Path) -> BinaryIO:
    name = display_name(str(path))
    try:
        if path.is_dir():
            raise PhotoError(f"{name} is a folder, not a photo: name a picture in it.")
        if path.exists() and not path.is_file():  # a device or a pipe may have no end
            raise PhotoError(f"{name} is not a file: name a picture.")
        return path.open("rb")
    except PermissionError as error:
        raise PhotoError(f"No permission to read the file {name}: ask its owner, or name another file.") from error
    except (OSError, ValueError) as error:  # also names that are too long or hold a null byte
        raise PhotoError(f"There is no file {name}.") from error


def _open_file(file: BinaryIO) -> Image.Image:
    start = file.read(2)
    if not start:
        raise PhotoError("This file is empty: send it again.")
    file.seek(0)
    if start == b"\xff\xd8" and _scans(file.read()) > MAX_SCANS:
        raise PhotoError("This JPEG has far more scans than a photo has: save it again as an ordinary one.")
    file.seek(0)
    return Image.open(file, formats=tuple(FORMATS))


def _scans(jpeg: bytes) -> int:
    """Count the scans of a JPEG up to its end marker, stopping after MAX_SCANS.

    libjpeg decodes each scan over the whole picture, however few bytes it has, and Pillow sets no limit: 25 MB can hold
    hours of work.
    """
    position, scans = 2, 0
    while scans <= MAX_SCANS and (marker := MARKER.search(jpeg, position)):
        kind, position = marker[1][0], marker.end()
        if kind == 0xD9:
            break
        scans += kind == 0xDA
        if kind != 0x01:  # skip the segment by its length: a thumbnail inside has scans of its own
            position += int.from_bytes(jpeg[position : position + 2])
    return scans


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # broken EXIF does not make the image unusable
        return 1


def _from_array(array: np.ndarray) -> Image.Image:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)) or not array.size:
        raise PhotoError(f"An array of shape {array.shape} is not a picture: expected (H, W), (H, W, 3) or (H, W, 4).")
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
        raise TooLargeError(_too_large())
    if min(image.size) < MIN_SIDE:
        raise PhotoError(
            f"This picture is only {image.width} by {image.height} pixels: both sides need {MIN_SIDE} or more."
        )


def _too_large() -> str:
    return f"This picture has more than {MAX_PIXELS // 1_000_000} megapixels: send a smaller one."


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8-bit RGB with as few copies as possible: each copy of a large image is hundreds of megabytes."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        return _gray_to_rgb(image, (1.0, 255.0))
    if image.mode.startswith("I"):  # 16 bits: I;16, or widened to I
        return _gray_to_rgb(image, (255.0, 65535.0))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image.convert("RGB")


def _gray_to_rgb(image: Image.Image, maxima: tuple[float, ...]) -> Image.Image:
    """Scale gray values to 8 bits by the smallest of `maxima` that no pixel exceeds, else by the brightest pixel."""
    values = np.asarray(image).astype(np.float32)
    np.nan_to_num(values, copy=False, posinf=0)
    brightest = float(values.max())
    maximum = next((maximum for maximum in maxima if brightest <= maximum), brightest)
    np.clip(values, 0, maximum, out=values)
    values *= 255 / maximum
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")
