"""Fetches a published model from the Hub into the client's cache: whole, of one commit, or not at all.

The Hub's own client does the work, and its retries stay: a rate limit (429), a server's trouble (5xx) and a connection
that is cut are tried again, a download that was cut goes on where it stopped. What is added here:

* Where nobody answers, the client would try for 25 seconds, once for each file. A question beforehand, asked twice,
  finds that out in a second, and the cache is asked instead, so that a page starts soon with what it has.
* The client compares a file's length. Here its content, too, must be what the Hub calls it by (SHA-256).
"""

import errno
import hashlib
import json
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from twincar.modeling.detection import detector
from twincar.modeling.open_set import open_set

PATIENCE = 5  # seconds for the first question: the Hub answers within one
TRIES = 2
LONGEST_WAIT = 30  # seconds that the Hub may ask for (Retry-After) before it is done without
UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR}


PARTS = {"detector": detector.FILE, "open_set": open_set.FILE}  # entry of config.json -> the file it is about
# Before 0.2.0 both lay in one file, under the config's entry "knowledge".
LEGACY_ENTRY, LEGACY_FILE = "knowledge", "knowledge.safetensors"


class CacheError(Exception):
    """The Hub's cache cannot be written, in one sentence."""


def fetch(repo: str, **options) -> dict:
    """Bring config.json, model.safetensors and the other weights that the config lists, all of one commit of `repo`,
    into the cache.

    options : of `hf_hub_download`. Given back are those that read the same files again, without the network.

    Raises CacheError where there is no room or no right to write, and what the Hub's client raises:
    LocalEntryNotFoundError where the Hub cannot be reached and the cache lacks the model, HfHubHTTPError where the Hub
    says no.
    """
    cached = options | {"local_files_only": True, "force_download": False}
    try:
        if not options.get("force_download") and re.fullmatch("[0-9a-f]{40}", options.get("revision") or ""):
            with suppress(LocalEntryNotFoundError):
                return _download(repo, cached)  # a commit never changes: there is nothing to ask
        if not options.get("local_files_only") and (trouble := _trouble(repo, options)):
            try:
                return _download(repo, cached)
            except LocalEntryNotFoundError as error:
                raise error from trouble
        return _download(repo, options)
    except OSError as error:
        if error.errno in UNWRITABLE:
            cache = options.get("cache_dir") or constants.HF_HUB_CACHE
            raise CacheError(
                f"{repo} cannot be written to the Hub's cache {cache} ({error.strerror}): make room there, or name "
                "another folder with HF_HUB_CACHE."
            ) from error
        raise


def _trouble(repo: str, options: dict) -> Exception | None:
    """Why it is no use to wait for the Hub now: it does not answer, or wants to be left alone for long."""
    url = hf_hub_url(repo, constants.CONFIG_NAME, revision=options.get("revision"))
    for left in reversed(range(TRIES)):
        try:
            get_hf_file_metadata(url, token=options.get("token"), timeout=PATIENCE)
            return None
        except HfHubHTTPError as error:  # an answer: what it means, and whether it passes, the client knows
            wait = error.response.headers.get("Retry-After", "")
            return error if wait.isdecimal() and int(wait) > LONGEST_WAIT else None
        except HTTPError as error:
            trouble = error
            time.sleep(1 if left else 0)
    return trouble


def _download(repo: str, options: dict) -> dict:
    config = _get(repo, constants.CONFIG_NAME, options)
    options = options | {"revision": config.parent.name}  # all of one commit, though the branch may move on meanwhile
    content = json.loads(config.read_text(encoding="utf-8"))
    parts = part_files(upgrade_config(content)) if isinstance(content, dict) else {}
    for name in dict.fromkeys((constants.SAFETENSORS_SINGLE_FILE, *parts.values())):
        file = _get(repo, name, options)
        if not options.get("local_files_only") and _damaged(file):
            file = _get(repo, name, options | {"force_download": True})
            if _damaged(file):
                (file.parent / os.readlink(file)).unlink()
                raise OSError("its weights arrived damaged, twice; try again over another network.")
    return options | {"local_files_only": True, "force_download": False}


def upgrade_config(config: dict) -> dict:
    """A config with the entries of today, where it was written before 0.2.0."""
    if old := config.get(LEGACY_ENTRY):
        entry = {"sha256": old["sha256"], "legacy": True}
        config = {key: value for key, value in config.items() if key != LEGACY_ENTRY}
        config |= {"detector": entry, "open_set": old | entry}
    return config


def part_files(config: dict) -> dict[str, str]:
    """Entry of config.json -> name of the weights file it is about, for the parts that the model has."""
    entries = {part: entry for part in PARTS if isinstance(entry := config.get(part), dict)}
    return {part: LEGACY_FILE if entry.get("legacy") else PARTS[part] for part, entry in entries.items()}


def _get(repo: str, name: str, options: dict) -> Path:
    """`hf_hub_download`, and once more after what it does not try again itself: a 5xx or a short answer to its GET, and
    what hf_xet, the other way to large files, raises (RuntimeError)."""
    try:
        return Path(hf_hub_download(repo, name, **options))
    except LocalEntryNotFoundError:
        raise
    except (OSError, RuntimeError) as error:
        refused = isinstance(error, HfHubHTTPError) and error.response.status_code < 500
        if refused or getattr(error, "errno", None) in UNWRITABLE or options.get("local_files_only"):
            raise
        time.sleep(1)
        return Path(hf_hub_download(repo, name, **options))


def _damaged(file: Path) -> bool:
    """Whether the content of a cached file is not what the Hub calls it by: large files by their SHA-256."""
    blob = Path(os.readlink(file)).name if file.is_symlink() else ""  # Windows keeps no names
    return bool(re.fullmatch("[0-9a-f]{64}", blob)) and blob != sha256(file)


def sha256(file: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal: the name that the Hub, too, gives to weights."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
