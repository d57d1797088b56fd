"""Download of a published model into the Hub client's cache: complete, from a single commit, and verified.

The Hub client retries rate limits (429), server errors (5xx) and interrupted connections, and resumes partial
downloads. This module adds:

* A probe. The client retries an unreachable Hub for more than 20 seconds per file; two short requests find that out in
  about a second, so that a page starts quickly from the cache. With HF_HUB_OFFLINE there is no request at all.
* A checksum. The client compares file sizes only; here the content must match the SHA-256 under which the Hub lists it.
"""

import errno
import hashlib
import json
import logging
import os
import re
import time
from contextlib import suppress
from pathlib import Path

from huggingface_hub import constants, get_hf_file_metadata, hf_hub_download, hf_hub_url
from huggingface_hub.errors import HfHubHTTPError, HTTPError, LocalEntryNotFoundError

from twincar.modeling.detection import detector
from twincar.modeling.hub.timm_layout import from_file
from twincar.modeling.networks import closed_form_head
from twincar.modeling.open_set import open_set

PROBE_TIMEOUT = 5  # seconds; the Hub usually replies within one
PROBE_TRIES = 2
MAX_RETRY_AFTER = 30  # seconds; if the Hub asks for a longer wait, the cache is used instead
UNWRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOTDIR}

# Entry of config.json -> its weights file
PARTS = {"detector": detector.FILE, "open_set": open_set.FILE, "class_statistics": closed_form_head.FILE}
# Before 0.2.0 both were in one file, described by one entry of config.json.
LEGACY_ENTRY, LEGACY_FILE = "knowledge", "knowledge.safetensors"

FROM_CACHE = "The Hub cannot be reached: %s is used as it is in the local cache, at commit %s."


class CacheError(Exception):
    """The Hub client's cache cannot be written. The message is one sentence."""


def fetch(repo: str, **options) -> dict:
    """Download config.json and every weights file that it lists, all from one commit of `repo`, into the cache.

    Args:
        repo: "user/repo".
        **options: Options of `hf_hub_download`, such as `revision` or `token`.

    Returns:
        Options with which `hf_hub_download` reads the same files from the cache, without network access.

    Raises:
        CacheError: The cache is full or not writable.
        LocalEntryNotFoundError: The Hub cannot be reached and the model is not in the cache.
        HfHubHTTPError: The Hub refused the request.
    """
    cached = options | {"local_files_only": True, "force_download": False}
    try:
        if not options.get("force_download") and re.fullmatch("[0-9a-f]{40}", options.get("revision") or ""):
            with suppress(LocalEntryNotFoundError):
                return _download(repo, cached)  # a commit never changes, so the cache is never stale
        if constants.is_offline_mode():
            return _download(repo, cached)
        if not options.get("local_files_only") and (failure := _probe(repo, options)):
            try:
                found = _download(repo, cached)
            except LocalEntryNotFoundError as error:
                raise error from failure
            logging.getLogger(__name__).warning(FROM_CACHE, repo, found["revision"][:7])
            return found
        return _download(repo, options)
    except OSError as error:
        if error.errno in UNWRITABLE:
            cache = options.get("cache_dir") or constants.HF_HUB_CACHE
            raise CacheError(
                f"{repo} cannot be written to the Hub's cache {cache} ({error.strerror}): free some space, or set "
                "HF_HUB_CACHE to another folder."
            ) from error
        raise


def _probe(repo: str, options: dict) -> Exception | None:
    """The error that makes downloading pointless now (no connection, or a long Retry-After), or None."""
    failure: Exception | None = None
    url = hf_hub_url(repo, constants.CONFIG_NAME, revision=options.get("revision"))
    for left in reversed(range(PROBE_TRIES)):
        try:
            get_hf_file_metadata(url, token=options.get("token"), timeout=PROBE_TIMEOUT)
            return None
        except HfHubHTTPError as error:  # the Hub replied: the client handles the rest
            wait = error.response.headers.get("Retry-After", "")
            return error if wait.isdecimal() and int(wait) > MAX_RETRY_AFTER else None
        except HTTPError as error:
            failure = error
            time.sleep(1 if left else 0)
    return failure


def _download(repo: str, options: dict) -> dict:
    config = _get(repo, constants.CONFIG_NAME, options)
    options = options | {"revision": config.parent.name}  # one commit for all files, even if the branch moves
    content = json.loads(config.read_text(encoding="utf-8"))
    parts = part_files(upgrade_config(content)) if isinstance(content, dict) else {}
    for name in dict.fromkeys((constants.SAFETENSORS_SINGLE_FILE, *parts.values())):
        file = _get(repo, name, options)
        if not options.get("local_files_only") and _damaged(file):
            file = _get(repo, name, options | {"force_download": True})
            if _damaged(file):
                (file.parent / os.readlink(file)).unlink()
                raise OSError("its weights were damaged in two downloads; try another network.")
    return options | {"local_files_only": True, "force_download": False}


def upgrade_config(config: dict) -> dict:
    """Return the config of a model for the content of config.json, also where it was written before 0.2.0."""
    config = from_file(config)
    if old := config.get(LEGACY_ENTRY):
        entry = {"sha256": old["sha256"], "legacy": True}
        figures = {"scenes" if key == "composed" else key: value for key, value in old.items()}
        config = {key: value for key, value in config.items() if key != LEGACY_ENTRY}
        config |= {"detector": entry, "open_set": figures | entry}
    return config


def part_files(config: dict) -> dict[str, str]:
    """Map each entry of config.json that describes a part of the model, such as "detector", to its weights file."""
    entries = {part: entry for part in PARTS if isinstance(entry := config.get(part), dict)}
    return {part: LEGACY_FILE if entry.get("legacy") else PARTS[part] for part, entry in entries.items()}


def _get(repo: str, name: str, options: dict) -> Path:
    """Call `hf_hub_download`, and once more after failures that it does not retry.

    These are a 5xx status or a truncated reply to its GET, and the RuntimeErrors of hf_xet.
    """
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
    """Whether the content of a cached file does not match its name in the cache, for large files their SHA-256."""
    blob = Path(os.readlink(file)).name if file.is_symlink() else ""  # on Windows the cache may hold copies, not links
    return bool(re.fullmatch("[0-9a-f]{64}", blob)) and blob != sha256(file)


def sha256(file: Path) -> str:
    """SHA-256 of a file's content in hexadecimal, as the Hub lists weights files."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
