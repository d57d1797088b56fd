"""A stranger's file -> an upright RGB picture, or one sentence about why not. Uploads are hostile until decoded.

Without torch, so that the command line answers quickly. Tensors are made in `features.py`.
"""

import io
import re
import warnings
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pi_heif
from PIL import Image, UnidentifiedImageError

from twincar.config import BOX_MARGIN, TwinCarError
from twincar.text import display_name

MAX_PIXELS = 100_000_000  # 100 megapixels: above nearly any camera's; decoded that is 400 MB
MIN_SIDE = 16  # pixels; below this nobody could tell a car either
MAX_SCANS = 100  # of a JPEG; a progressive one has about ten, and each more costs a pass over all pixels

# What cameras, phones and browsers write. Pillow reads 40 more formats, some by starting other programs (EPS) or by
# code that is hardly looked at: none of that is for strangers' files.
FORMATS = ("JPEG", "PNG", "WEBP", "AVIF", "HEIF", "GIF", "TIFF", "BMP")
MARKER = re.compile(rb"\xff([^\x00\xd0-\xd7\xff])")  # of a JPEG; in its scans \xff is followed by one of these
ORIENTATION = 0x0112  # the EXIF tag
FULL_SIZE = "full_size"  # in `info` of a picture that `load_photo` was told to make smaller: what it was before
UPRIGHT = {  # its values, and what turns such a picture upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}

Photo = str | Path | bytes | Image.Image | np.ndarray

pi_heif.register_heif_opener(thumbnails=False)  # HEIC, as iPhones take them; AVIF is Pillow's own


class PhotoError(TwinCarError):
    """A photo that cannot be answered; the text is one sentence for the person who sent it."""


def load_photo(photo: Photo, box=None, side: int | None = None) -> Image.Image:
    """Read a path, the bytes of a file, a PIL image or an array and return it upright, in 8-bit RGB, at full size.

    box : (x1, y1, x2, y2) to cut out first, as of `crop_box`. It counts in the picture as it is stored, before EXIF
        turns it upright: so do annotations.
    side : give the picture at a whole fraction of its size, such that both sides still have so many pixels; by default
        at full size. A JPEG is then decoded at 1/2, 1/4 or 1/8, in as small a part of the time, where there is no box.

    Files are of FORMATS. Arrays are (H, W), (H, W, 3) or (H, W, 4), integers in 0-255 or floats in 0-1. EXIF rotation
    is applied where the EXIF can be read, transparency is laid on white, 16 bits are scaled to 8, and of an animation
    or a stack the first picture counts.

    Raises PhotoError for what is no picture, is broken, or has too many or too few pixels.
    """
    try:
        with warnings.catch_warnings():  # PIL's are about the stranger's file: what matters of it is said below
            warnings.simplefilter("ignore")
            return _load(photo, box, side)
    except PhotoError as error:
        reason = str(error)
    except UnidentifiedImageError:
        reason = "This file is not a picture that can be read: send a JPEG, PNG or WebP photo."
    except Image.DecompressionBombError:
        reason = _too_large()
    except MemoryError:
        reason = "This picture needs more memory than there is: send a smaller one."
    except Exception:  # PIL's decoders raise anything from SyntaxError to struct.error on broken files
        reason = "This picture is broken and cannot be read to its end: save or send it again."
    raise PhotoError(reason)  # without a cause: batches keep their errors, and a traceback keeps the decoder's buffers


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


def _load(photo: Photo, box, side: int | None) -> Image.Image:
    opened = _open(photo)
    _check_size(opened)
    full = opened.size
    if side and box is None and opened is not photo:
        opened.draft(None, (side, side))
    if opened.tell():  # not `n_frames`, which reads an animation to its end to count
        opened.seek(0)
    opened.load()
    image = opened if box is None else crop_box(opened, box)
    image = _to_rgb(image)
    if (turn := UPRIGHT.get(_orientation(opened))) is not None:
        image = image.transpose(turn)
    if image is opened:  # it may be the caller's, or hold on to its file
        image = image.copy()
    if side and (factor := min(image.size) // side) > 1:
        image = image.reduce(factor)
    full = full if (full[0] > full[1]) == (image.width > image.height) else full[::-1]  # turned upright, as it is
    smaller = box is None and image.size != full
    # What is saved from here on does not say again how it was turned, or where it was taken.
    image.info = {FULL_SIZE: full} if smaller else {}
    return image


def _open(photo: Photo) -> Image.Image:
    if isinstance(photo, Image.Image):
        return photo
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    if isinstance(photo, (bytes, bytearray, memoryview)):
        return _decoder(io.BytesIO(photo))
    if isinstance(photo, (str, Path)):
        return _decoder(_file(Path(photo)))
    raise PhotoError(f"A photo is a path, bytes, a PIL image or an array, not {type(photo).__name__}.")


def _file(path: Path) -> BinaryIO:
    name = display_name(str(path))
    try:
        if path.is_dir():
            raise PhotoError(f"{name} is a folder, not a photo: name a picture in it.")
        if path.exists() and not path.is_file():  # a device or a pipe might never end
            raise PhotoError(f"{name} is not a file: name a picture.")
        return path.open("rb")
    except PermissionError as error:
        raise PhotoError(f"The file {name} may not be read: ask its owner, or name another one.") from error
    except (OSError, ValueError) as error:  # a name that is too long, or holds a null byte, is no file's either
        raise PhotoError(f"There is no file {name}.") from error


def _decoder(file: BinaryIO) -> Image.Image:
    start = file.read(2)
    if not start:
        raise PhotoError("This file is empty: send it again.")
    file.seek(0)
    if start == b"\xff\xd8" and _scans(file.read()) > MAX_SCANS:
        raise PhotoError("This JPEG has far more scans than a photo has: save it again as an ordinary one.")
    file.seek(0)
    return Image.open(file, formats=FORMATS)


def _scans(jpeg: bytes) -> int:
    """How many scans a JPEG has, up to its end marker; a few more than MAX_SCANS are not counted.

    libjpeg decodes each over the whole picture, however few bytes it has, and Pillow sets no limit: in 25 MB there is
    room for hours.
    """
    place, scans = 2, 0
    while scans <= MAX_SCANS and (marker := MARKER.search(jpeg, place)):
        kind, place = marker[1][0], marker.end()
        if kind == 0xD9:
            break
        scans += kind == 0xDA
        if kind != 0x01:  # the others are followed by their length, and a thumbnail in them has scans of its own
            place += int.from_bytes(jpeg[place : place + 2])
    return scans


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # the picture itself is sound, whatever its notes are
        return 1


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


def _to_rgb(image: Image.Image) -> Image.Image:
    """In 8-bit RGB; with as few copies as can be, since each of the largest picture is hundreds of megabytes."""
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        return _grey(image, (1.0, 255.0))
    if image.mode.startswith("I"):  # 16 bits, as I;16 or widened to I
        return _grey(image, (255.0, 65535.0))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    return image.convert("RGB")


def _grey(image: Image.Image, tops: tuple[float, ...]) -> Image.Image:
    """Scale grey to 8 bits, from the least of `tops` that nothing is above, else from the brightest pixel."""
    values = np.asarray(image).astype(np.float32)
    np.nan_to_num(values, copy=False, posinf=0)
    brightest = float(values.max())
    top = next((top for top in tops if brightest <= top), brightest)
    np.clip(values, 0, top, out=values)
    values *= 255 / top
    return Image.fromarray(values.astype(np.uint8)).convert("RGB")
