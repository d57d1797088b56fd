"""Files as people send them in bulk, photos and zips of photos -> one photo at a time. Zips are hostile until read.

items = unpack([("holiday.zip", path), ("car.jpg", other)])       # what there is to answer, nothing read yet
for item, photo in zip(items, read(items)): ...                   # bytes, or the PhotoError that says why not

Nothing is ever extracted: a member is read into memory by its place in the zip, one at a time, and the names in a zip
are shown and never opened. What a zip says of its sizes is believed only as a limit to what is read of it.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import groupby
from pathlib import Path, PurePosixPath
from zipfile import ZIP_DEFLATED, ZIP_STORED, ZipFile, ZipInfo

from twincar.features.photo import PhotoError
from twincar.text import display_name

MB = 1_000_000
MOST_PHOTOS = 500  # at a time
PHOTO_BYTES = 25 * MB
ZIP_BYTES = 200 * MB  # as it is sent
UNPACKED_BYTES = 1000 * MB  # of all photos of one zip
RATIO = 100  # a photo hardly shrinks in a zip; a megabyte that shrank a hundredfold is a trap
CHUNK = MB  # the most that is read, or unpacked, at once; the table of contents has to fit as well
HIDDEN = {"__macosx", "thumbs.db", "desktop.ini"}  # what systems leave in zips, besides names that start with "."


@dataclass(frozen=True)
class Item:
    """One thing to answer: a file, or the member of a zip at place `member`. `name` is for people; `reason` is "" or
    why it will not be read, in one sentence."""

    name: str
    path: Path
    member: int | None = None
    reason: str = ""

    def read(self) -> bytes:
        """The photo's bytes. Raises PhotoError."""
        [content] = read([self])
        if isinstance(content, PhotoError):
            raise content
        return content


def unpack(files: Iterable[tuple[str, Path]]) -> list[Item]:
    """What (name, path) files hold, in order: at most MOST_PHOTOS items, and one more that says what was left out.

    A zip that cannot be opened is one item with its reason. Hidden members are passed over; a zip in a zip is an item
    with a reason.
    """
    items: list[Item] = []
    for name, path in files:
        try:
            items += _members(name, path) if _is_zip(name, path) else [Item(display_name(name), path)]
        except PhotoError as error:
            items.append(Item(display_name(name), path, reason=str(error)))
    if (left := len(items) - MOST_PHOTOS) > 0:
        words = f"At most {MOST_PHOTOS} photos are answered at a time: send these after the others."
        items[MOST_PHOTOS:] = [Item(f"{left:,} more", items[MOST_PHOTOS].path, reason=words)]
    return items


def read(items: Iterable[Item]) -> Iterator[bytes | PhotoError]:
    """The bytes of each item, or why there are none: one in memory at a time, each zip opened once."""
    for (path, zipped), group in groupby(items, key=lambda item: (item.path, item.member is not None)):
        with ExitStack() as stack:
            archive = None
            for item in group:
                try:
                    if item.reason:
                        raise PhotoError(item.reason)
                    if zipped and archive is None:
                        archive = stack.enter_context(_opened(path))
                    yield _member(archive, item.member) if zipped else _file(path)
                except PhotoError as error:
                    yield error


def check_size(size: int) -> None:
    """Raises PhotoError for a photo of too many bytes."""
    if size > PHOTO_BYTES:
        raise PhotoError(f"This file has {size / MB:,.0f} MB: a photo may have up to {PHOTO_BYTES // MB} MB.")


def _is_zip(name: str, path: Path) -> bool:
    if name.lower().endswith(".zip"):
        return True
    try:
        with path.open("rb") as file:
            return file.read(4) == b"PK\3\4"
    except OSError:
        return False  # reading it will say so


def _members(name: str, path: Path) -> Iterator[Item]:
    with _opened(path) as archive:
        infos = archive.infolist()
    if any(info.flag_bits & 1 for info in infos):
        raise PhotoError("This zip is locked with a password: zip the photos without one.")
    total, found = 0, False
    for place, info in enumerate(infos):
        inner = info.filename.replace("\\", "/")
        if inner.endswith("/") or any(_hidden(part) for part in PurePosixPath(inner).parts):
            continue
        found, total = True, total + info.file_size
        reason = _refused(info)
        if total > UNPACKED_BYTES:
            reason = f"This zip unpacks to more than {UNPACKED_BYTES // MB:,} MB: send the rest in another one."
        yield Item(display_name(f"{name}/{inner}"), path, place, reason)
    if not found:
        raise PhotoError("There are no photos in this zip.")


def _hidden(part: str) -> bool:
    return (part.startswith(".") and part not in (".", "..")) or part.lower() in HIDDEN


def _refused(info: ZipInfo) -> str:
    """Why a member is not read, or ""."""
    if info.filename.lower().endswith(".zip"):
        return "A zip in a zip is not opened: send it by itself."
    if info.compress_type not in (ZIP_STORED, ZIP_DEFLATED):  # zipfile cannot unpack the others a piece at a time
        return "This file is packed in a way that is not read here: make an ordinary zip."
    try:
        check_size(info.file_size)
    except PhotoError as error:
        return str(error)
    if info.file_size > MB and info.file_size > RATIO * info.compress_size:
        return f"This file shrank more than {RATIO}-fold in the zip, as no photo does."
    return ""


def _file(path: Path) -> bytes:
    try:
        check_size(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise PhotoError("This file is not there any more: send it again.") from error


def _member(archive: ZipFile, place: int) -> bytes:
    with _sentences(), archive.open(archive.infolist()[place]) as file:
        return b"".join(iter(lambda: file.read(CHUNK), b""))  # never more than the size that was checked


class _Careful(FileIO):
    """A file read in small pieces: ZipFile reads a table of contents at once, however large that says it is."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            size = os.fstat(self.fileno()).st_size - self.tell()
        if size > CHUNK:
            raise PhotoError("This zip holds too many files: send fewer at a time.")
        return super().read(size)


@contextmanager
def _opened(path: Path) -> Iterator[ZipFile]:
    with _sentences():
        if (size := path.stat().st_size) > ZIP_BYTES:
            raise PhotoError(f"This zip has {size / MB:,.0f} MB: it may have up to {ZIP_BYTES // MB} MB.")
        file = _Careful(path)
    with file:
        with _sentences():
            archive = ZipFile(file)
        with archive:
            yield archive


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except PhotoError:
        raise
    except FileNotFoundError as error:
        raise PhotoError("This file is not there any more: send it again.") from error
    except Exception as error:  # on broken zips zipfile raises anything from BadZipFile to zlib.error and ValueError
        raise PhotoError("This zip, or this part of it, is broken and cannot be read: zip the photos again.") from error
