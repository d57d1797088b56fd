"""Files to answer, one after the other, and the file that their answers go to, which a killed run can go on with.

find_photos([Path("photos/")])                 # walks the folders as it is asked; nothing is listed before
with open_answers(Path("answers.csv"), resume=True) as answers:
    if "a.jpg" not in answers: answers.write("a.jpg", as_dict(predictor("a.jpg")))

A line an answer, in JSON or as CSV by the file's suffix, written at once. Memory does not grow with the folder but by
8 bytes a photo that an earlier run has answered, and by the names of one folder at a time.
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

COLUMNS = ["file", "class_name", "make", "model", "body", "year", "probability", "error"]  # of a CSV of best answers
SUFFIXES = (".jsonl", ".csv")


def find_photos(given: Iterable[Path]) -> Iterator[Path]:
    """Files as they are named; of folders, all pictures below them in order of their names.

    Raises TwinCarError at the end of a folder that held none. A folder below that may not be read is given itself, so
    that whoever reads it says so.
    """
    for path in given:
        if not os.path.isdir(path):  # Path.is_dir raises for a name that is too long
            yield path
            continue
        found = False
        for found in _below(path):
            yield found
        if not found:
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
    """One line: the file with its answer, as of `saying.as_dict`, or with the reason why there is none."""
    rest = {"error": answer} if isinstance(answer, str) else answer
    return json.dumps({"file": file} | rest)  # in ASCII: a name may be no UTF-8


class Results:
    """Writes answers to an open file, and knows which files it held before."""

    def __init__(self, file: BinaryIO, is_csv: bool, done: np.ndarray):
        self._file, self._csv, self._done = file, is_csv, done

    def __contains__(self, name: str) -> bool:
        place = np.searchsorted(self._done, key := _key(_shown(name, self._csv)))
        return bool(place < len(self._done) and self._done[place] == key)

    def __len__(self) -> int:
        return len(self._done)

    def write(self, name: str, answer: dict[str, Any] | str) -> None:
        """Add a file's answer, as of `saying.as_dict` (a CSV keeps the best guess), or the reason why there is none."""
        if not self._csv:
            line = as_json(name, answer) + "\n"
        else:
            row = {"error": answer} if isinstance(answer, str) else dict(answer["top"][0])
            row |= {"file": name} | ({"probability": f"{row['probability']:.4f}"} if "probability" in row else {})
            line = _csv_line([_shown(row.get(column), True) for column in COLUMNS])
        self._file.write(line.encode())
        self._file.flush()


@contextmanager
def open_results(path: Path, resume: bool = False) -> Iterator[Results]:
    """Open `path`, whose suffix says whether it is JSON lines or CSV.

    resume : go on with what an earlier run left, but for a last line that was not written to its end.

    Raises TwinCarError for another suffix, for a file that is there while `resume` is not set, or that is none of ours.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise TwinCarError(f"{path} does not end in {' or '.join(SUFFIXES)}: name such a file with `--out`.")
    if path.exists() and not resume:
        raise TwinCarError(f"{path} is there already: go on with `--resume`, or name another `--out`.")
    is_csv = path.suffix.lower() == ".csv"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("a+b")
    except OSError as error:
        raise TwinCarError(f"{path} cannot be written ({error.strerror}): name another `--out`.") from error
    with file:
        _cut_torn_line(file)
        file.seek(0)
        done = np.sort(np.fromiter((_key(name) for name in _names(file, is_csv, path)), np.uint64))
        file.seek(0, os.SEEK_END)
        if is_csv and not file.tell():
            file.write(_csv_line(COLUMNS).encode())
        yield Results(file, is_csv, done)


def _cut_torn_line(file: BinaryIO) -> None:
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
    """The files that have an answer, as they are written there."""
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
        words = f"{path} holds something else than answers of `twincar predict`: name another `--out`."
        raise TwinCarError(words) from error
    finally:
        lines.detach()


def _csv_line(values: list) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(values)
    return line.getvalue()


def _shown(value, is_csv: bool):
    """A CSV's value, on one line and safe for spreadsheets; JSON takes what there is."""
    if not is_csv or not isinstance(value, str):
        return value
    return spreadsheet_safe("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in value))


def _key(name: str) -> int:
    """8 bytes for a name: among a million there is a chance of 3 in 10^8 that two share them."""
    return int.from_bytes(hashlib.blake2b(name.encode(errors="surrogateescape"), digest_size=8).digest())
