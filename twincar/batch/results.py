"""Files to process, and the results file of a batch, which an interrupted run can resume.

    find_photos([Path("photos/")])                 # walks the folders lazily
    with open_results(Path("results.csv"), resume=True) as results:
        if "a.jpg" not in results: results.write("a.jpg", as_dict(predictor("a.jpg")))

Each result is written at once as one line, of JSON or CSV by the file's suffix. Memory use grows only by 8 bytes per
photo of an earlier run, and by the names in one folder at a time.
"""

import csv
import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from twincar.config import IMAGE_SUFFIXES, TwinCarError
from twincar.files import spreadsheet_safe

COLUMNS = ["file", "class_name", "make", "model", "body", "year", "probability", "error"]  # of CSV
SUFFIXES = (".jsonl", ".csv")


def find_photos(given: Iterable[Path]) -> Iterator[Path]:
    """Yield the given files, and all pictures below the given folders, sorted by name.

    A subfolder that cannot be listed is yielded itself, so that reading it reports the error.

    Raises:
        TwinCarError: A folder has no pictures; raised after it has been walked.
    """
    for path in given:
        if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long
            yield path
            continue
        empty = True
        for photo in _below(path):
            empty = False
            yield photo
        if empty:
            raise TwinCarError(f"There are no pictures in the folder {path}.")


def _below(folder: Path) -> Iterator[Path]:
    try:
        with os.scandir(folder) as entries:
            inside = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
    except OSError:
        yield folder
        return
    for name, is_folder in inside:
        if is_folder:
            yield from _below(folder / name)
        elif Path(name).suffix.lower() in IMAGE_SUFFIXES:
            yield folder / name


def as_json(file: str, answer: dict[str, Any] | str) -> str:
    """Format a file and its answer (from `describe.as_dict`), or the reason why there is none, as one line of JSON."""
    rest = {"error": answer} if isinstance(answer, str) else answer
    return json.dumps({"file": file} | rest)  # in ASCII, because a file name may not be valid UTF-8


class Results:
    """An open results file: `name in results` tests for photos of earlier runs, `write` adds a result.

    Args:
        file: The file, opened for appending.
        is_csv: Whether to write CSV rather than JSON lines.
        done: Sorted (N,) uint64 hashes of the photos that already have a result.
    """

    def __init__(self, file: BinaryIO, is_csv: bool, done: np.ndarray):
        self._file, self._csv, self._done = file, is_csv, done

    def __contains__(self, name: object) -> bool:
        index = np.searchsorted(self._done, key := _key(_cell(str(name)) if self._csv else str(name)))
        return bool(index < len(self._done) and self._done[index] == key)

    def __len__(self) -> int:
        return len(self._done)

    def write(self, name: str, answer: dict[str, Any] | str) -> None:
        """Write a photo's answer, from `describe.as_dict` (CSV keeps the top 1), or the reason why there is none."""
        if not self._csv:
            line = as_json(name, answer) + "\n"
        else:
            row = {"error": answer} if isinstance(answer, str) else dict(answer["top"][0])
            row |= {"file": name} | ({"probability": f"{row['probability']:.4f}"} if "probability" in row else {})
            line = _csv_line([_cell(row.get(column)) for column in COLUMNS])
        self._file.write(line.encode())
        self._file.flush()


@contextmanager
def open_results(path: Path, resume: bool = False) -> Iterator[Results]:
    """Open a results file for writing.

    Args:
        path: A path that ends in .jsonl (JSON lines) or .csv.
        resume: Whether to append to an existing file. An incomplete last line is removed first.

    Raises:
        TwinCarError: The suffix is another one, the file cannot be written, it exists and `resume` is False, or it is
            not a results file.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise TwinCarError(f"{path} does not end in {' or '.join(SUFFIXES)}: use such a file for `--out`.")
    if path.exists() and not resume:
        raise TwinCarError(f"{path} already exists: continue it with `--resume`, or use another file for `--out`.")
    is_csv = path.suffix.lower() == ".csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise TwinCarError(f"{path} cannot be written ({error.strerror}): use another file for `--out`.") from error
    with file:
        _truncate_incomplete_line(file)
        file.seek(0)
        done = np.sort(np.fromiter((_key(name) for name in _names(file, is_csv, path)), np.uint64))
        file.seek(0, os.SEEK_END)
        if is_csv and not file.tell():
            file.write(_csv_line(COLUMNS).encode())
        yield Results(file, is_csv, done)


def _truncate_incomplete_line(file: BinaryIO) -> None:
    """Truncate a file after its last newline."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(end - 65536, 0)
        file.seek(start)
        last = file.read(end - start).rfind(b"\n")
        if last >= 0:
            end = start + last + 1
            break
        end = start
    file.truncate(end)


def _names(file: BinaryIO, is_csv: bool, path: Path) -> Iterator[str]:
    """Yield the names of the photos in a results file, as written there."""
    lines = io.TextIOWrapper(file, encoding="utf-8", newline="")
    try:
        if is_csv:
            rows = csv.reader(lines)
            if next(rows, COLUMNS) != COLUMNS:
                raise ValueError("other columns")
            yield from (row[0] for row in rows)
        else:
            yield from (json.loads(line)["file"] for line in lines)
    except (ValueError, KeyError, TypeError, IndexError, csv.Error) as error:
        message = f"{path} is not a results file of `twincar predict`: use another file for `--out`."
        raise TwinCarError(message) from error
    finally:
        lines.detach()


def _csv_line(values: list) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _cell(value: Any) -> Any:
    """Return a value for CSV: text on one line, and safe for spreadsheets."""
    if not isinstance(value, str):
        return value
    return spreadsheet_safe("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value))


def _key(name: str) -> int:
    """Hash a name to 8 bytes. Among a million names, two collide with a probability of 3 in 10^8."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest())
