"""Hub failures: the real client against a local server that refuses, drops, truncates, corrupts or stalls replies.

Temporary failures are retried, permanent ones are one sentence, the page falls back to its own copy, and only complete
files stay in the cache.
"""

import errno
import os
import re
import shutil
import socket
import subprocess
import sys
import time

import pytest
from huggingface_hub import file_download

import app
from twincar import Predictor
from twincar.modeling.hub import download
from twincar.modeling.hub.model_folder import ModelError
from twincar.modeling.publishing import push_pull

WEIGHTS, ALL_HEADS = "GET .*model.safetensors", "HEAD "


@pytest.fixture
def cars(hub, tiny_model):
    return shutil.copytree(tiny_model, hub.root / "someone" / "cars")


@pytest.fixture
def slept(monkeypatch):
    """Records pauses between tries instead of sleeping."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def cached(tmp_path) -> list[int]:
    """Sizes of the files in the Hub client's cache."""
    return sorted(file.stat().st_size for file in (tmp_path / "cache").rglob("blobs/*"))


@pytest.mark.parametrize(
    ("where", "what", "times", "headers"),
    [
        (ALL_HEADS, 500, 3, {}),
        (ALL_HEADS, 503, 3, {}),
        (ALL_HEADS, 429, 3, {"Retry-After": "2"}),
        (ALL_HEADS, "closed", 1, {}),
        (WEIGHTS, 429, 2, {"Retry-After": "2"}),
        (WEIGHTS, 500, 1, {}),
        (WEIGHTS, "closed", 2, {}),
        (WEIGHTS, "truncated", 3, {}),
        (WEIGHTS, "short", 1, {}),
        (WEIGHTS, "corrupted", 1, {}),
    ],
)
def test_temporary_failures_are_retried(cars, hub, slept, tmp_path, where, what, times, headers):
    failure = hub.fail(where, what, times, **headers)
    Predictor.from_pretrained("someone/cars")
    assert failure.met == times
    assert slept or what == "corrupted"
    assert sum(slept) < 30
    assert cached(tmp_path) == sorted((cars / name).stat().st_size for name in ("config.json", "model.safetensors"))


@pytest.mark.parametrize(
    ("where", "what", "headers", "words"),
    [
        ("", 401, {}, r"HTTP 401\): check the name; if the repo is private, log in"),
        ("", 403, {}, r"HTTP 403\): request access"),
        ("", 404, {}, r"HTTP 404\): check the name"),
        ("", 429, {"Retry-After": "3600"}, r"HTTP 429\): too many requests; try again in 3600 seconds"),
        ("", 429, {}, r"HTTP 429\): too many requests; try again later"),
        ("", 500, {}, r"HTTP 500\): server error"),
        ("", "closed", {}, "cannot be reached"),
        (WEIGHTS, 403, {}, "HTTP 403"),
        (WEIGHTS, 502, {}, "HTTP 502"),
        (WEIGHTS, "closed", {}, "cannot be reached"),
        (WEIGHTS, "short", {}, "should be of size"),
        (WEIGHTS, "corrupted", {}, "damaged in two downloads"),
    ],
)
def test_permanent_failures_are_one_sentence_and_the_page_uses_its_copy(
    cars, hub, slept, tmp_path, tiny_model, where, what, headers, words
):
    failure = hub.fail(where, what, **headers)
    predictor, notice = app.load("someone/cars", shipped=tiny_model)
    assert failure.met
    assert predictor.class_names == Predictor.from_pretrained(tiny_model).class_names
    sentence, own = notice.removesuffix(".").rsplit(". ", 1)
    assert own == "This page uses the model that it was shipped with"
    assert "\n" not in sentence
    assert re.search(words, sentence)
    assert sum(slept) < 30
    assert cached(tmp_path) in ([], [(cars / "config.json").stat().st_size])  # complete files only


def test_an_unreachable_hub_is_detected_quickly(cars, hub, slept, monkeypatch):
    """The client's own retries would take 23 seconds per file."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        unreachable = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        unreachable + "/{repo_id}/resolve/{revision}/{filename}",
    )
    with pytest.raises(ModelError, match="cannot be reached and someone/cars is not in the local cache"):
        Predictor.from_pretrained("someone/cars")
    assert sum(slept) <= 1


def test_a_stalled_hub_times_out(cars, hub, monkeypatch):
    monkeypatch.setattr(download, "PROBE_TIMEOUT", 0.2)
    failure = hub.fail("", "stalled")
    with pytest.raises(ModelError, match="cannot be reached"):
        Predictor.from_pretrained("someone/cars")
    assert failure.met == download.PROBE_TRIES


def test_without_the_hub_the_cache_is_used(cars, hub, slept):
    """A pinned commit cannot have changed, so it is loaded without a request."""
    Predictor.from_pretrained("someone/cars@main")
    commit = hub.head("someone/cars", "main")
    failure = hub.fail("", "closed")
    Predictor.from_pretrained("someone/cars@main")
    assert failure.met == download.PROBE_TRIES
    Predictor.from_pretrained(f"someone/cars@{commit}")
    assert failure.met == download.PROBE_TRIES


def test_a_model_from_the_cache_of_an_unreachable_hub_gets_a_note(cars, hub, slept, caplog):
    Predictor.from_pretrained("someone/cars")
    assert not caplog.records
    hub.fail("", "closed")
    Predictor.from_pretrained("someone/cars")
    (record,) = caplog.records
    commit = hub.head("someone/cars", "main")
    assert record.getMessage() == (
        f"The Hub cannot be reached: someone/cars is used as it is in the local cache, at commit {commit[:7]}."
    )


@pytest.mark.parametrize("name", ["someone/cars", "someone/cars@main"])
def test_offline_the_cached_model_is_used_without_a_request(cars, hub, tiny_model, monkeypatch, caplog, name):
    """HF_HUB_OFFLINE=1, with which `hf_hub_download` itself reads the cache. The page serves the same model."""
    Predictor.from_pretrained(name)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub.requests.clear()
    assert Predictor.from_pretrained(name).class_names
    _, notice = app.load(name, shipped=tiny_model)
    assert (notice, hub.requests, caplog.records) == (None, [], [])
    with pytest.raises(ModelError, match=r"^someone/other is not in the local cache, and HF_HUB_OFFLINE is set: unset"):
        Predictor.from_pretrained("someone/other")


def test_a_deleted_revision(cars, hub, slept):
    with pytest.raises(ModelError, match=r"someone/cars@v1 \(HTTP 404\): there is no such revision"):
        Predictor.from_pretrained("someone/cars@v1")


def test_all_files_are_from_one_commit(cars, hub, monkeypatch):
    """A push between the two downloads results in the old model, not a mixture."""
    first = hub.head("someone/cars", "main")
    get = download.hf_hub_download

    def push_meanwhile(repo, name, **options):
        if name == "model.safetensors":
            (cars / name).write_bytes(b"weights of the next model")
        return get(repo, name, **options)

    monkeypatch.setattr(download, "hf_hub_download", push_meanwhile)
    assert download.fetch("someone/cars")["revision"] == first
    Predictor.from_pretrained(f"someone/cars@{first}")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_named(cars, hub, tmp_path, monkeypatch, number):
    def full(url, temp_file, **options):
        temp_file.write(b"some")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(ModelError, match=f"Hub's cache .*cache .{os.strerror(number)}.: free some space, or set"):
        Predictor.from_pretrained("someone/cars")
    assert cached(tmp_path) == []


@pytest.mark.parametrize("times", [1, 2])
def test_errors_of_hf_xet(cars, hub, slept, monkeypatch, times):
    """hf_xet, which the local server does not implement, raises RuntimeError for all failures."""
    get, failures = file_download.http_get, iter(range(times))

    def failing(url, temp_file, **options):
        if next(failures, None) is not None:
            raise RuntimeError("Data processing error: CAS service error")
        get(url, temp_file, **options)

    monkeypatch.setattr(file_download, "http_get", failing)
    if times == 1:
        Predictor.from_pretrained("someone/cars")
        return
    with pytest.raises(ModelError, match=r"someone/cars cannot be loaded: Data processing error"):
        Predictor.from_pretrained("someone/cars")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no resource limits")
def test_an_interrupted_write_leaves_nothing(cars, hub, tmp_path, car_photo):
    """Simulates a full disk: the process may not write files above 1 MB."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
    limited += "from twincar.cli import main; sys.argv[0] = 'twincar'; main()"
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"),
                                "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip
    command = [sys.executable, "-c", limited, "predict", str(car_photo), "--model", "someone/cars"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "File too large" in done.stderr and "free some space" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert cached(tmp_path) == [(cars / "config.json").stat().st_size]


def test_an_interrupted_pull_leaves_the_old_model(cars, hub, slept, tmp_path):
    out = push_pull.pull("someone/cars", tmp_path / "mine")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    (cars / "model.safetensors").write_bytes(b"another model" * 1000)
    hub.fail(WEIGHTS, "closed")
    with pytest.raises(ModelError, match="cannot be reached"):
        push_pull.pull("someone/cars", out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
