"""Photos and zip archives of photos -> one photo at a time. Archives are untrusted.

    items = unpack([("holiday.zip", path), ("car.jpg", other)])       # lists the photos; reads none yet
    for item, photo in zip(items, read(items)): ...                   # bytes, or a PhotoError with the reason

Nothing is extracted to disk: members are read into memory by index, one at a time. Names in an archive are displayed
and never opened. Sizes stated in an archive only limit how much is read.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import groupby
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from twincar.features.photo import PhotoError, TooLargeError
from twincar.files import is_system_name
from twincar.text import display_name

MB = 1_000_000
MAX_PHOTOS = 500  # at a time
PHOTO_BYTES = 25 * MB
ZIP_BYTES = 200 * MB  # compressed size of one zip
UNPACKED_BYTES = 1000 * MB  # total size of the photos of one zip
MAX_RATIO = 100  # photos hardly compress; a member above 1 MB with a higher ratio is treated as a zip bomb
CHUNK = MB  # bytes read or decompressed at once; also limits the central directory of a zip


@dataclass(frozen=True)
class Item:
    """One photo: a file, or a member of a zip.

    Attributes:
        name: Name for display.
        path: The file, or the zip.
        member: Index of the member in the zip; None for a file.
        reason: Why the photo will not be read, in one sentence, or "".
    """

    name: str
    path: Path
    member: int | None = None
    reason: str = ""

    def read(self) -> bytes:
        """Return the photo's bytes, or raise PhotoError."""
        [content] = read([self])
        if isinstance(content, PhotoError):
            raise content
        return content


def unpack(files: Iterable[tuple[str, Path | PhotoError]]) -> list[Item]:
    """List the photos in (name, path) files, in order.

    A file may come with the reason why it was refused instead of a path. A zip that cannot be opened is one item with a
    reason, and so is a zip inside a zip. Hidden members are skipped.

    Returns:
        At most MAX_PHOTOS items, and one more with a reason if there were more photos.
    """
    items: list[Item] = []
    for name, path in files:
        if isinstance(path, PhotoError):
            items.append(Item(display_name(name), Path(), reason=str(path)))
            continue
        try:
            items += _members(name, path) if _is_zip(name, path) else [Item(display_name(name), path)]
        except PhotoError as error:
            items.append(Item(display_name(name), path, reason=str(error)))
    if (left := len(items) - MAX_PHOTOS) > 0:
        reason = f"At most {MAX_PHOTOS} photos are processed at a time: send the others afterwards."
        items[MAX_PHOTOS:] = [Item(f"{left:,} more", items[MAX_PHOTOS].path, reason=reason)]
    return items


def read(items: Iterable[Item]) -> Iterator[bytes | PhotoError]:
    """Yield the bytes of each item, or a PhotoError with the reason why it cannot be read.

    One photo is in memory at a time, and each zip is opened once.
    """
    for path, group in groupby(items, key=lambda item: item.path):
        with ExitStack() as stack:
            archive: ZipFile | None = None
            for item in group:
                try:
                    if item.reason:
                        raise PhotoError(item.reason)
                    if item.member is None:
                        yield _file(path)
                        continue
                    if archive is None:
                        archive = stack.enter_context(_opened(path))
                    yield _member(archive, item.member)
                except PhotoError as error:
                    yield error


def check_size(size: int) -> None:
    """Raise TooLargeError if a photo of this many bytes is too large."""
    if size > PHOTO_BYTES:
        raise TooLargeError(f"This file has {size / MB:,.0f} MB: photos of up to {PHOTO_BYTES // MB} MB are accepted.")


def _is_zip(name: str, path: Path) -> bool:
    if name.lower().endswith(".zip"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\3\4"
    except OSError:
        return False  # reported when it is read


def _members(name: str, path: Path) -> Iterator[Item]:
    with _opened(path) as archive:
        infos = archive.infolist()
    if any(info.flag_bits & 1 for info in infos):
        raise PhotoError("This zip is protected by a password: send one without a password.")
    total, found = 0, False
    for index, info in enumerate(infos):
        inner = info.filename.replace("\\", "/")
        if inner.endswith("/") or any(map(_hidden, PurePosixPath(inner).parts)):
            continue
        found, total = True, total + info.file_size
        reason = _refused(info)
        if total > UNPACKED_BYTES:
            reason = f"This zip unpacks to more than {UNPACKED_BYTES // MB:,} MB: send the other photos separately."
        yield Item(display_name(f"{name}/{inner}"), path, index, reason)
    if not found:
        raise PhotoError("There are no photos in this zip.")


def _hidden(part: str) -> bool:
    return part not in (".", "..") and is_system_name(part)


def _refused(info: ZipInfo) -> str:
    """Return why a member is not read, or ""."""
    if info.filename.lower().endswith(".zip"):
        return "A zip inside a zip is not opened: send it separately."
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # zipfile cannot decompress others in chunks
        return "The compression of this file is not supported: use a standard zip (deflate)."
    try:
        check_size(info.file_size)
    except PhotoError as error:
        return str(error)
    if info.file_size > MB and info.file_size > MAX_RATIO * info.compress_size:
        return f"This file is compressed more than {MAX_RATIO}-fold, which no photo is."
    return ""


def _file(path: Path) -> bytes:
    try:
        check_size(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise PhotoError("This file is no longer stored here: send it again.") from error


def _member(archive: ZipFile, index: int) -> bytes:
    with _photo_errors(), archive.open(archive.infolist()[index]) as file:
        return b"".join(iter(lambda: file.read(CHUNK), b""))  # at most the stated size, which has been checked


class _LimitedFile(FileIO):
    """A file that refuses large reads: ZipFile reads the central directory at once, whatever its stated size."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > CHUNK:
            raise PhotoError("This zip has too many files: send fewer at a time.")
        return super().read(size)


@contextmanager
def _opened(path: Path) -> Iterator[ZipFile]:
    with _photo_errors():
        if (size := path.stat().st_size) > ZIP_BYTES:
            raise PhotoError(f"This zip has {size / MB:,.0f} MB: zips of up to {ZIP_BYTES // MB} MB are accepted.")
        file = _LimitedFile(path)
    with file:
        with _photo_errors():
            archive = ZipFile(file)
        with archive:
            yield archive


@contextmanager
def _photo_errors() -> Iterator[None]:
    """Turn errors of reading a zip into a PhotoError with a one-sentence message."""
    try:
        yield
    except PhotoError:
        raise
    except FileNotFoundError as error:
        raise PhotoError("This file is no longer stored here: send it again.") from error
    except Exception as error:  # zipfile raises many kinds for broken zips: BadZipFile, zlib.error, ValueError
        raise PhotoError("This zip, or a part of it, is damaged and cannot be read: zip the photos again.") from error
