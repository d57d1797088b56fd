"""Cache of the training pictures on disk: each cropped to its box and squashed to a square, in one array file."""

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
    """Return a table's pictures, cropped to their boxes and squashed, as a memory-mapped array.

    The array is built in parallel, once for each table and size, and written atomically. Later calls and other
    processes map the same file. Changes to the original files after that have no effect.

    Args:
        table: Rows with the columns path, x1, y1, x2, y2.
        size: Side of the squares, in pixels.
        folder: The cache's folder.
        progress: Whether to show a progress bar.

    Returns:
        The pictures, (N, size, size, 3) uint8, read-only; and the rows that could not be read, which are black, with
        the reason of each.

    Raises:
        TwinCarError: There is not enough disk space.
    """
    rows = table[["path", "x1", "y1", "x2", "y2"]].to_csv(index=False)
    path = Path(folder) / f"pictures-{size}-{hashlib.sha256(rows.encode()).hexdigest()[:16]}.npy"
    unreadable = path.with_suffix(".unreadable.json")
    if not path.is_file():
        with locked(path.with_name(f".{path.stem}.lock")):
            remove_leftovers(path.parent, path.name)
            if not path.is_file():  # another process may have built it meanwhile
                _check_disk_space(path.parent, len(table) * size * size * 3)
                with atomic_write(path) as temporary:
                    write_json(_build(temporary, table, size, progress), unreadable)
    reasons = json.loads(unreadable.read_text()) if unreadable.is_file() else {}
    return np.load(path, mmap_mode="r"), {int(row): reason for row, reason in reasons.items()}


def _check_disk_space(folder: Path, needed: int) -> None:
    """Raise TwinCarError if space is short: a memory-mapped file on a full disk kills the process with SIGBUS."""
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise TwinCarError(
            f"The training pictures take {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are available: "
            "free some space."
        )


def _build(path: Path, table: pd.DataFrame, size: int, progress: bool) -> dict[int, str]:
    """Write the array; returns row -> reason for pictures that cannot be read and stay black."""
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
        except BaseException:  # on Ctrl-C, the pool would otherwise finish all jobs first
            pool.shutdown(cancel_futures=True)
            raise
    pictures.flush()
    return unreadable
