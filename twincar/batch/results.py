"""Files to process, and the results file of a batch, which an interrupted run can resume.

    find_photos([Path("photos/")])                 # walks the folders lazily
    with open_results(Path("results.csv"), resume=True) as results:
        if "a.jpg" not in results: results.write("a.jpg", as_dict(predictor("a.jpg")))

Each result is written at once, by the file's suffix as one line of JSON, or as CSV with a line per car (UTF-8 with a
byte order mark, without which Excel misreads it). Memory use grows only by 8 bytes per photo of an earlier run, and by
the names in one folder at a time.
"""

import codecs
import csv
import hashlib
import io
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from twincar.config import TwinCarError
from twincar.files import pictures_below, spreadsheet_safe

NAMED = ["class_name", "make", "model", "body", "year", "probability"]  # of the most probable class
DECIDED = ["state", "said", "is_car", "is_known"]
SIDES = ["x1", "y1", "x2", "y2"]
COLUMNS = ["file", "car", "cars", *DECIDED, *NAMED, *SIDES, "error"]  # of CSV
SUFFIXES = (".jsonl", ".csv")


def find_photos(given: Iterable[Path], unread: Counter[str] | None = None) -> Iterator[Path]:
    """Yield the given files, and all pictures below the given folders, sorted by name.

    A subfolder that cannot be listed is yielded itself, so that reading it reports the error.

    Args:
        given: Files and folders.
        unread: Counts the pictures in folders whose format is not read, by suffix.

    Raises:
        TwinCarError: A folder has no pictures; raised after it has been walked.
    """
    for path in given:
        if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long
            yield path
            continue
        empty = True
        for photo in pictures_below(path, unread):
            empty = False
            yield photo
        if empty:
            why = f" that can be read ({', '.join(unread)} cannot)" if unread else ""
            raise TwinCarError(f"There are no pictures in the folder {path}{why}.")


def as_json(file: str, answer: dict[str, Any] | str) -> str:
    """Format a file and its answer (from `describe.as_dict`), or the reason why there is none, as one line of JSON."""
    rest = {"error": answer} if isinstance(answer, str) else answer
    return json.dumps({"file": file} | rest)  # in ASCII, because a file name may not be valid UTF-8


def table_rows(file: str, answer: dict[str, Any] | str) -> list[dict[str, Any]]:
    """The rows of a table about one photo: one per car, largest first, or a single one where there is none.

    Args:
        file: The photo's name.
        answer: From `describe.as_dict`, or the reason why there is none.

    Returns:
        Rows with all COLUMNS but `error`: `car` counts from 1 to `cars`, and the box is None where the whole photo was
        read. A photo without a car has `cars` 0 and no class. An unreadable one has `file` and `error` only.
    """
    if isinstance(answer, str):
        return [{"file": file, "error": answer}]
    cars = answer["cars"]
    if not cars:
        first: dict[str, Any] = {"file": file, "car": None, "cars": 0}
        return [first | {key: answer[key] for key in DECIDED} | dict.fromkeys(NAMED + SIDES)]
    return [
        {"file": file, "car": place, "cars": len(cars)}
        | {key: (answer | car)[key] for key in DECIDED}
        | {key: car["top"][0][key] for key in NAMED}
        | dict(zip(SIDES, car["box"] or [None] * 4, strict=True))
        for place, car in enumerate(cars, 1)
    ]


def as_csv(rows: Iterable[dict[str, Any]]) -> bytes:
    """Format rows of `table_rows`, and those that have more keys, as a CSV file."""
    return codecs.BOM_UTF8 + "".join([_csv_line(COLUMNS), *map(_csv_row, rows)]).encode()


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
        line = "".join(map(_csv_row, table_rows(name, answer))) if self._csv else as_json(name, answer) + "\n"
        self._file.write(line.encode())
        self._file.flush()


@contextmanager
def open_results(path: Path, resume: bool = False) -> Iterator[Results]:
    """Open a results file for writing.

    Args:
        path: A path that ends in .jsonl (JSON lines) or .csv.
        resume: Whether to append to an existing file. A photo whose lines are incomplete is removed first.

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
        if is_csv:
            _truncate_incomplete_photo(file)
        file.seek(0)
        done = np.sort(np.fromiter((_key(name) for name in _names(file, is_csv, path)), np.uint64))
        file.seek(0, os.SEEK_END)
        if is_csv and not file.tell():
            file.write(as_csv([]))
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


def _truncate_incomplete_photo(file: BinaryIO) -> None:
    """Remove the last lines of a CSV where they are not those of all cars of a photo."""
    file.seek(0)
    if file.readline().decode("utf-8-sig", errors="replace") != _csv_line(COLUMNS):
        return
    file.seek(max(file.seek(0, os.SEEK_END) - 65536, 0))
    lines = file.read().splitlines(keepends=True)
    row = dict(zip(COLUMNS, next(csv.reader([lines[-1].decode()])), strict=False))
    car, cars = row.get("car", ""), row.get("cars", "")
    if car.isdecimal() and cars.isdecimal() and int(car) < int(cars):
        file.truncate(file.tell() - sum(map(len, lines[-int(car) :])))


def _names(file: BinaryIO, is_csv: bool, path: Path) -> Iterator[str]:
    """Yield the names of the photos in a results file, as written there."""
    lines = io.TextIOWrapper(file, encoding="utf-8-sig", newline="")
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


def _csv_row(row: dict[str, Any]) -> str:
    if row.get("probability") is not None:
        row = row | {"probability": f"{row['probability']:.4f}"}
    return _csv_line([_cell(row.get(column)) for column in COLUMNS])


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
