"""Cache of the training images on disk: each cropped to its box and squashed to a square, in one array file."""

import hashlib
import json
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
from rich.progress import track

from twincar.config import TwinCarError
from twincar.features.photo import load_photo
from twincar.features.transforms import squash
from twincar.files import atomic_write, locked, remove_leftovers, write_json


def cached_pictures(
    table: pd.DataFrame, size: int, folder: Path, progress: bool = True
) -> tuple[np.ndarray, dict[int, str]]:
    """The table's pictures, cut to their boxes and squashed: a read-only (N, size, size, 3) uint8 array on disk; and
    why those rows of it that are black could not be read.

    Built once a table and size, in parallel, beside its final name; later calls, and other processes, map the same
    file. What happens to a picture's own file after that makes no difference.
    Raises TwinCarError where there is no room for it.
    """
    rows = table[["path", "x1", "y1", "x2", "y2"]].to_csv(index=False)
    path = Path(folder) / f"pictures-{size}-{hashlib.sha256(rows.encode()).hexdigest()[:16]}.npy"
    unreadable = path.with_suffix(".unreadable.json")
    if not path.is_file():
        with locked(path.with_name(f".{path.stem}.lock")):
            remove_leftovers(path.parent, path.name)
            if not path.is_file():  # another process may have built it meanwhile
                _check_room(path.parent, len(table) * size * size * 3)
                with atomic_write(path) as beside:
                    write_json(_fill(beside, table, size, progress), unreadable)
    named = json.loads(unreadable.read_text()) if unreadable.is_file() else {}
    return np.load(path, mmap_mode="r"), {int(row): reason for row, reason in named.items()}


def _check_room(folder: Path, needed: int) -> None:
    """A mapped file that finds no room ends the process without a word (SIGBUS), so it is asked for beforehand."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TwinCarError(
            f"The training pictures take {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free: "
            "make room."
        )


def _fill(path: Path, table: pd.DataFrame, size: int, progress: bool) -> dict[int, str]:
    """Write the pictures; row -> reason of those that cannot be read and stay black."""
    pictures = np.lib.format.open_memmap(path, "w+", np.uint8, (len(table), size, size, 3))
    unreadable = {}

    def read(row: int) -> None:
        record = table.iloc[row]
        pictures[row] = squash(load_photo(record["path"], record[["x1", "y1", "x2", "y2"]]), size)

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        jobs = [pool.submit(read, row) for row in range(len(table))]
        try:
            for row, job in enumerate(track(jobs, "Reading pictures", disable=not progress)):
                if error := job.exception():
                    unreadable[row] = " ".join(str(error).split()) or type(error).__name__
        except BaseException:  # Ctrl-C: the pool would read all the rest first
            pool.shutdown(cancel_futures=True)
            raise
    pictures.flush()
    return unreadable
