"""Walks over folders of pictures, atomic file writes and file locks."""

import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from twincar.config import IMAGE_SUFFIXES, OTHER_IMAGE_SUFFIXES, TwinCarError

if TYPE_CHECKING:
    import pandas as pd


SYSTEM_NAMES = frozenset(
    (
        "__macosx", "__pycache__", "@eadir", "@recycle", "@recently-snapshot", "@tmp", "#recycle", "#snapshot",
        "$recycle.bin", "recycler", "recycled", "lost+found", "msocache", "system volume information",
        "network trash folder", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
    )
)  # fmt: skip


def is_system_name(name: str) -> bool:
    """Whether a file or folder is a system's or hidden: `@eaDir`, `lost+found`, `__MACOSX`, `.cache`, `._photo.jpg`."""
    return name.startswith(".") or name.lower() in SYSTEM_NAMES


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture that can be read, and no system's."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES and not is_system_name(name)


def pictures_below(folder: str | Path, unread: Counter[str] | None = None) -> Iterator[Path]:
    """Walk a folder lazily, and yield the pictures in it and below it, sorted by name.

    A folder that cannot be listed is yielded itself, so that reading it reports the error. Links to folders are not
    followed.

    Args:
        folder: The folder.
        unread: Counts the pictures whose format is not read (OTHER_IMAGE_SUFFIXES), by suffix.
    """
    try:
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError:
        yield Path(folder)
        return
    for name, is_folder in inside:
        if is_folder and not is_system_name(name):
            yield from pictures_below(Path(folder, name), unread)
        elif not is_folder and is_picture(name):
            yield Path(folder, name)
        elif unread is not None and (suffix := os.path.splitext(name)[1].lower()) in OTHER_IMAGE_SUFFIXES:
            unread[suffix] += 1


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`, with the same suffix; it replaces `path` when the block succeeds.

    If the block raises or the process is killed, an existing `path` is unchanged. Missing parent folders are created.
    Several processes may write the same path: the last one wins, and readers never see a partial file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path, name: str = "") -> None:
    """Remove the temporary files that killed processes left in `folder`.

    Call it only while no other process writes there.

    Args:
        folder: The folder; its subfolders are not searched.
        name: Remove only leftovers of this file; by default of any file.
    """
    for path in Path(folder).glob(f".{Path(name).stem or '*'}.*.tmp{Path(name).suffix or '*'}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, refusal: str | None = None, timeout: float = 8) -> Iterator[None]:
    """Hold an exclusive lock on the file `path` for the duration of the block.

    The lock belongs to the operating system and is released when its process ends, however it ends.

    Args:
        path: The lock file; created if missing.
        refusal: Error message if the lock is not free within `timeout`; None waits without limit.
        timeout: Seconds to wait. The data loader's workers outlive a killed training, and hold its lock, for up to
            five seconds, until torch notices that their parent is gone.

    Raises:
        TwinCarError: With the message `refusal`, if the lock was not acquired in time.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=timeout if refusal else -1):
            yield
    except Timeout as error:
        raise TwinCarError(refusal) from error


def write_json(value: Any, path: str | Path) -> None:
    """Write a value as indented JSON, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(table: "pd.DataFrame", path: str | Path, decimals: int = 4) -> None:
    """Write a table as CSV, without its index, atomically."""
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, float_format=f"%.{decimals}f")


def for_spreadsheets(table: "pd.DataFrame") -> "pd.DataFrame":
    """Apply `spreadsheet_safe` to every value of a table that holds untrusted text, such as file names."""
    return table.map(spreadsheet_safe)


def spreadsheet_safe(value: Any) -> Any:
    """Prefix a text with an apostrophe if a spreadsheet would run it as a formula (OWASP, CSV injection)."""
    formula = isinstance(value, str) and (
        value[:1] in ("\t", "\r", "\n") or value.lstrip()[:1] in tuple("=+-@＝＋－＠")
    )
    return f"'{value}" if formula else value
