"""Nothing is lost: a file is written beside its place and takes it only when it is whole."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

from twincar.config import TwinCarError

if TYPE_CHECKING:
    import pandas as pd


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Give a path beside `path`, with the same suffix, to write to; when the block ends well it becomes `path`.

    A block that raises, or is killed, leaves an older `path` as it was. Missing folders are made. Several processes may
    write the same path: the last one to finish wins, and no reader ever sees half a file.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def remove_leftovers(folder: str | Path, name: str = "") -> None:
    """Remove what killed processes left half-written in `folder`: of the file `name`, or of anything. For callers who
    know that nobody writes there now."""
    for path in Path(folder).glob(f".{Path(name).stem or '*'}.*.tmp{Path(name).suffix or '*'}"):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


@contextmanager
def locked(path: str | Path, refusal: str | None = None, patience: float = 8) -> Iterator[None]:
    """Hold the lock file `path`, made where it is not: of several processes one is in the block at a time.

    The lock is the operating system's and goes with its process, however that ends. After `patience` seconds of waiting
    TwinCarError(`refusal`) is raised; without a refusal it is waited for. (The data loader's workers outlive a killed
    training, and hold its lock, for the five seconds until torch has them look after it.)
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=patience if refusal else -1):
            yield
    except Timeout as error:
        raise TwinCarError(refusal) from error


def write_json(value: Any, path: str | Path) -> None:
    """Write what JSON can say, indented for people."""
    with atomic_write(path) as beside:
        beside.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def write_csv(table: "pd.DataFrame", path: str | Path, decimals: int = 4) -> None:
    """Write a table without its index."""
    with atomic_write(path) as beside:
        table.to_csv(beside, index=False, float_format=f"%.{decimals}f")


def for_spreadsheets(table: "pd.DataFrame") -> "pd.DataFrame":
    """The table with every value `spreadsheet_safe`: for words of strangers, such as the names of their files."""
    return table.map(spreadsheet_safe)


def spreadsheet_safe(value: Any) -> Any:
    """The value, with an apostrophe before a text that a spreadsheet would run as a formula (OWASP, CSV injection)."""
    formula = isinstance(value, str) and (
        value[:1] in ("\t", "\r", "\n") or value.lstrip()[:1] in tuple("=+-@＝＋－＠")
    )
    return f"'{value}" if formula else value
