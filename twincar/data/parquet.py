"""Read pictures from parquet files with the columns `image` and `label`, on disk or on the Hugging Face Hub.

Also from the .arrow files that `datasets.save_to_disk` writes.

    twincar prepare tanganke/stanford_cars --out data/

`image` is the Hub's struct {bytes, path} or plain bytes; `label` is a ClassLabel, whose names are in the file's schema,
or text. Pictures are written to disk unchanged, a few at a time, and not decoded here.
"""

import json
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
from rich.progress import track

from twincar.config import IMAGE_SUFFIXES
from twincar.data.listing import COLUMNS, SPLIT_NAMES, DataError, Listing, folder_name, lookup_class
from twincar.files import atomic_write, remove_leftovers
from twincar.text import count

if TYPE_CHECKING:
    import pyarrow as pa


def _split_of(file: Path) -> str | None:
    """The split in a name such as "data/train-00000-of-00003.parquet" or "default/train/0000.parquet", or None."""
    stem = re.sub(r"(-\d+-of-\d+.*|[-_.]?\d+)$", "", file.stem.lower())
    return next((SPLIT_NAMES[part] for part in (stem, *file.parts[-2::-1]) if part in SPLIT_NAMES), None)


def _with_splits(files: list[str]) -> tuple[list[tuple[str, str]], list[str]]:
    """(file, split) of the files to read, and notes.

    If some files name a split, those that name something else (corrupted variants, subsets) are left out: as training
    pictures they would repeat the test pictures.
    """
    splits = [(f, _split_of(Path(f))) for f in sorted(files)]
    if not any(split for _, split in splits):
        return [(f, "train") for f, _ in splits], []
    left_out = [Path(f).name for f, split in splits if not split]
    notes = [f"{count(len(left_out), 'parquet file')} of other splits left out ({left_out[0]})."] if left_out else []
    return [(f, split) for f, split in splits if split], notes


def download(repo: str, endpoint: str | None, progress: bool) -> tuple[Path, list[Path]]:
    """Download the parquet files of a Hub dataset.

    Args:
        repo: The dataset, "owner/name".
        endpoint: Address of the Hub, if it is not huggingface.co.
        progress: Whether to show a progress bar.

    Returns:
        The dataset's folder in the Hub's cache, and the paths of its parquet files.

    Raises:
        DataError: The dataset does not exist, is gated, has no parquet files, or cannot be downloaded.
    """
    from huggingface_hub import HfApi, constants, hf_hub_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        if constants.is_offline_mode() and (found := _cached(repo)):
            return found
        # not list_repo_files, which retries for 20 s before it reports that there is no network
        listed = HfApi(endpoint=endpoint).dataset_info(repo).siblings or []
        files = [f.rfilename for f in listed if f.rfilename.endswith(".parquet")]
        files = [f for f in files if f.startswith("data/")] or files
        wanted = [f for f, _ in _with_splits(files)[0]]
        paths = [
            Path(hf_hub_download(repo, f, repo_type="dataset", endpoint=endpoint))
            for f in track(wanted, "Downloading", disable=not progress)
        ]
    except GatedRepoError as error:
        raise DataError(
            f"The Hub dataset {repo} requires you to accept its terms: do so on its page, then `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise DataError(
            f"There is neither a folder {repo} here nor a dataset of that name on the Hub; if it is private, "
            "`hf auth login` first."
        ) from error
    except DataError:
        raise
    except Exception as error:  # no network, a proxy's answer, a full disk: the client has dozens of exceptions
        if _is_unreachable(error) and (found := _cached(repo)):
            message = "The Hub cannot be reached: %s is used as it is in the local cache, at commit %s."
            logging.getLogger(__name__).warning(message, repo, found[0].name[:7])
            return found
        why = (str(error).strip().splitlines() or [""])[0].rstrip(".")
        raise DataError(
            f"There is no folder {repo} here, and the Hub dataset of that name could not be downloaded "
            f"({type(error).__name__}: {why}); check the network and try again."
        ) from error
    if not paths:
        raise DataError(f"The Hub dataset {repo} holds no .parquet files: download it and give its folder instead.")
    return paths[0].parents[wanted[0].count("/")], paths


def _is_unreachable(error: Exception) -> bool:
    """Whether a failure says nothing about the dataset: no connection, or an error of the server itself."""
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

    if isinstance(error, HfHubHTTPError):
        return error.response.status_code >= 500 or error.response.status_code == 429
    return isinstance(error, HTTPError | LocalEntryNotFoundError)


def _cached(repo: str) -> tuple[Path, list[Path]] | None:
    """What `download` returns, from the Hub's cache alone; None where there is nothing of the dataset.

    Raises:
        DataError: The cache holds a part of the files only, as their names ("train-00000-of-00003") show.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        root = Path(snapshot_download(repo, repo_type="dataset", local_files_only=True))
    except LocalEntryNotFoundError:
        return None
    names = sorted(file.relative_to(root).as_posix() for file in root.rglob("*.parquet"))
    wanted = [file for file, _ in _with_splits([f for f in names if f.startswith("data/")] or names)[0]]
    found: dict[tuple[str, int], int] = {}
    for name in wanted:
        if part := re.search(r"([^/]*)-\d+-of-(\d+)", name):
            found[part[1], int(part[2])] = found.get((part[1], int(part[2])), 0) + 1
    for (split, total), number in found.items():
        if number < total:
            raise DataError(
                f"The Hub cannot be reached, and only {number} of {total} parquet files of {split} are in the local "
                f"cache: prepare {repo} again with a connection."
            )
    return (root, [root / name for name in wanted]) if wanted else None


def read_parquet(layout: str, root: Path, files: list[Path], pictures: Path | None, progress: bool) -> Listing:
    """Write the pictures of parquet files to `pictures`/<split>/<class>/, unchanged, and list them in the files' order.

    Args:
        layout: Name of the layout, for the listing.
        root: Folder of the files.
        files: The parquet files, below `root`.
        pictures: Folder for the pictures; None raises.
        progress: Whether to show progress bars.

    Raises:
        DataError: A file cannot be read or has other columns, or boxes are needed (`pictures` is None).
    """
    import pyarrow as pa

    if pictures is None:
        raise DataError(
            f"{root} holds {files[0].suffix[1:]} files, which have no boxes: give the devkit's or Kaggle's folder."
        )
    for folder in pictures.glob("*/*/"):
        remove_leftovers(folder)
    wanted, notes = _with_splits([f.relative_to(root).as_posix() for f in files])
    rows, names, numbers, unlabeled = [], {}, set(), 0
    taken: set[Path] = set()
    for file, split in wanted:
        try:
            with _opened(root / file) as (schema, batches, total):
                if not {"image", "label"} <= set(schema.names):
                    raise DataError(f"{file} has the columns {', '.join(schema.names)}: image and label are needed.")
                label_names = _label_names(schema.metadata)
                names.update(dict.fromkeys(label_names))
                number = 0
                for batch in track(batches, f"Writing {split}", total=total, disable=not progress):
                    for image, label in zip(*(batch[c].to_pylist() for c in ("image", "label")), strict=True):
                        where, number = f"{file} row {number + 1}", number + 1
                        if label is None or label == -1:  # -1: the Hub's convention for hidden test labels
                            unlabeled += 1
                            continue
                        class_name, reason = str(label), ""
                        if not isinstance(label, str):
                            numbers.add(label)
                            if label_names:
                                class_name, reason = lookup_class(label + 1, label_names, where)
                        image = image if isinstance(image, dict) else {"bytes": image}
                        data = image.get("bytes")
                        if data is None and file.endswith(".arrow") and os.path.isfile(path := image.get("path") or ""):
                            rows.append((Path(path), split, class_name, *[float("nan")] * 4, where, reason))
                            continue  # a dataset of local pictures, which are not copied into it
                        name = _file_name(image.get("path") or f"{number:05d}", data)
                        target = pictures / split / folder_name(class_name) / name
                        if target in taken:
                            target = target.with_stem(f"{target.stem}-{len(taken)}")
                        taken.add(target)
                        if data and not reason:
                            _write_once(target, data)
                        elif not reason:
                            reason = f"missing: no picture in {where}"
                        rows.append((target, split, class_name, *[float("nan")] * 4, where, reason))
        except (pa.ArrowException, OSError) as error:
            why = (str(error).splitlines() or [""])[0]
            raise DataError(f"{root / file} cannot be read ({why}): download it again.") from error
    if unlabeled:
        notes.append(f"{count(unlabeled, 'picture')} without label left out.")
    order = list(names) or [str(number) for number in sorted(numbers)]  # in numeric order
    return Listing(layout, pd.DataFrame(rows, columns=COLUMNS), order or None, notes)


@contextmanager
def _opened(file: Path) -> Iterator[tuple["pa.Schema", Iterator["pa.RecordBatch"], int | None]]:
    """Open a file: its schema, small batches of its images and labels (not all fit into memory), and their number."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = ["image", "label"]
    if file.suffix == ".arrow":
        with pa.memory_map(str(file)) as mapped, pa.ipc.open_stream(mapped) as stream:
            slices = (batch.slice(i, 32) for batch in stream for i in range(0, batch.num_rows, 32))
            yield stream.schema, (batch.select(columns) for batch in slices), None
    else:
        with pq.ParquetFile(file, pre_buffer=False) as table:
            batches = table.iter_batches(batch_size=32, columns=columns)
            yield table.schema_arrow, batches, -(-table.metadata.num_rows // 32)


def _label_names(metadata: dict | None) -> list[str]:
    """The ClassLabel's names, which the `datasets` library stores in the parquet schema; [] if there are none."""
    try:
        label = json.loads((metadata or {})[b"huggingface"])["info"]["features"]["label"]
        return [str(name) for name in label["names"]]
    except (KeyError, TypeError, ValueError):
        return []


def _file_name(name: str, data: bytes | None) -> str:
    """A safe file name from an untrusted one, with a suffix that fits the data."""
    path = Path(name.replace("\\", "/"))
    suffix = ".png" if (data or b"").startswith(b"\x89PNG") else ".jpg"
    return (path.stem.lstrip(".") or "picture") + (path.suffix if path.suffix.lower() in IMAGE_SUFFIXES else suffix)


def _write_once(target: Path, data: bytes) -> None:
    """Write a file unless it exists with the same size: a restarted run continues where it was killed."""
    if target.is_file() and target.stat().st_size == len(data):
        return
    try:
        with atomic_write(target) as temporary:
            temporary.write_bytes(data)
    except OSError as error:
        raise DataError(
            f"{target} cannot be written ({error.strerror}): free some space or choose another folder."
        ) from error
