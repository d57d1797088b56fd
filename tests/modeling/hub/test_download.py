"""The Hub misbehaves: the real client against a server here that refuses, hangs up, cuts, garbles or is silent.

What passes is waited for, what does not is one sentence, the page has its own copy, and only whole files are kept.
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
    """Pauses between tries are noted instead of taken."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


def kept(tmp_path) -> list[int]:
    """Sizes of the files in the Hub's cache."""
    return sorted(file.stat().st_size for file in (tmp_path / "cache").rglob("blobs/*"))


@pytest.mark.parametrize(
    ("where", "what", "times", "headers"),
    [
        (ALL_HEADS, 500, 3, {}),
        (ALL_HEADS, 503, 3, {}),
        (ALL_HEADS, 429, 3, {"Retry-After": "2"}),
        (ALL_HEADS, "hung up", 1, {}),
        (WEIGHTS, 429, 2, {"Retry-After": "2"}),
        (WEIGHTS, 500, 1, {}),
        (WEIGHTS, "hung up", 2, {}),
        (WEIGHTS, "cut", 3, {}),
        (WEIGHTS, "short", 1, {}),
        (WEIGHTS, "garbled", 1, {}),
    ],
)
def test_what_passes_is_waited_for(cars, hub, slept, tmp_path, where, what, times, headers):
    trouble = hub.go_wrong(where, what, times, **headers)
    Predictor.from_pretrained("someone/cars")
    assert trouble.met == times
    assert slept or what == "garbled"
    assert sum(slept) < 30
    assert kept(tmp_path) == sorted((cars / name).stat().st_size for name in ("config.json", "model.safetensors"))


@pytest.mark.parametrize(
    ("where", "what", "headers", "words"),
    [
        ("", 401, {}, r"HTTP 401\): check the name; if it is private, log in"),
        ("", 403, {}, r"HTTP 403\): ask for access"),
        ("", 404, {}, r"HTTP 404\): check the name"),
        ("", 429, {"Retry-After": "3600"}, r"HTTP 429\): it was asked too often, try again in 3600 seconds"),
        ("", 429, {}, r"HTTP 429\): it was asked too often, try again later"),
        ("", 500, {}, r"HTTP 500\): that is trouble of its own"),
        ("", "hung up", {}, "cannot be reached"),
        (WEIGHTS, 403, {}, "HTTP 403"),
        (WEIGHTS, 502, {}, "HTTP 502"),
        (WEIGHTS, "hung up", {}, "cannot be reached"),
        (WEIGHTS, "short", {}, "should be of size"),
        (WEIGHTS, "garbled", {}, "arrived damaged, twice"),
    ],
)
def test_what_stays_is_one_sentence_and_the_page_has_its_copy(
    cars, hub, slept, tmp_path, tiny_model, where, what, headers, words
):
    trouble = hub.go_wrong(where, what, **headers)
    predictor, notice = app.load("someone/cars", beside=tiny_model)
    assert trouble.met
    assert predictor.class_names == Predictor.from_pretrained(tiny_model).class_names
    sentence, own = notice.removesuffix(".").rsplit(". ", 1)
    assert own == "This page answers with the copy that came with it"
    assert "\n" not in sentence
    assert re.search(words, sentence)
    assert sum(slept) < 30
    assert kept(tmp_path) in ([], [(cars / "config.json").stat().st_size])  # nothing that is not whole


def test_nobody_answers_is_found_out_soon(cars, hub, slept, monkeypatch):
    """The client's own tries would take 23 seconds for each file."""
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", nobody + "/{repo_id}/resolve/{revision}/{filename}"
    )
    with pytest.raises(ModelError, match="cannot be reached and someone/cars is not in its local cache"):
        Predictor.from_pretrained("someone/cars")
    assert sum(slept) <= 1


def test_a_silent_hub_is_not_waited_for_long(cars, hub, monkeypatch):
    monkeypatch.setattr(download, "PATIENCE", 0.2)
    trouble = hub.go_wrong("", "silent")
    with pytest.raises(ModelError, match="cannot be reached"):
        Predictor.from_pretrained("someone/cars")
    assert trouble.met == download.TRIES


def test_without_the_hub_the_cache_answers(cars, hub, slept):
    """And a pinned commit, which cannot have changed, without a question."""
    Predictor.from_pretrained("someone/cars@main")
    commit = hub.head("someone/cars", "main")
    trouble = hub.go_wrong("", "hung up")
    Predictor.from_pretrained("someone/cars@main")
    assert trouble.met == download.TRIES
    Predictor.from_pretrained(f"someone/cars@{commit}")
    assert trouble.met == download.TRIES


def test_a_revision_that_vanished(cars, hub, slept):
    with pytest.raises(ModelError, match=r"someone/cars@v1 \(HTTP 404\): it has no such revision"):
        Predictor.from_pretrained("someone/cars@v1")


def test_both_files_are_of_one_commit(cars, hub, monkeypatch):
    """A push between the two downloads gives the old model, not a mixture."""
    first = hub.head("someone/cars", "main")
    get = download.hf_hub_download

    def pushed_meanwhile(repo, name, **options):
        if name == "model.safetensors":
            (cars / name).write_bytes(b"weights of the next model")
        return get(repo, name, **options)

    monkeypatch.setattr(download, "hf_hub_download", pushed_meanwhile)
    assert download.fetch("someone/cars")["revision"] == first
    Predictor.from_pretrained(f"someone/cars@{first}")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_cache_that_cannot_be_written_is_named(cars, hub, tmp_path, monkeypatch, number):
    def full(url, temp_file, **options):
        temp_file.write(b"some")
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr("huggingface_hub.file_download.http_get", full)
    with pytest.raises(ModelError, match=f"Hub's cache .*cache .{os.strerror(number)}.: make room there, or name"):
        Predictor.from_pretrained("someone/cars")
    assert kept(tmp_path) == []


@pytest.mark.parametrize("times", [1, 2])
def test_trouble_of_the_other_way_to_large_files(cars, hub, slept, monkeypatch, times):
    """hf_xet, which a server here cannot play, raises RuntimeError whatever goes wrong."""
    get, troubles = file_download.http_get, iter(range(times))

    def failing(url, temp_file, **options):
        if next(troubles, None) is not None:
            raise RuntimeError("Data processing error: CAS service error")
        get(url, temp_file, **options)

    monkeypatch.setattr(file_download, "http_get", failing)
    if times == 1:
        Predictor.from_pretrained("someone/cars")
        return
    with pytest.raises(ModelError, match=r"someone/cars cannot be loaded: Data processing error"):
        Predictor.from_pretrained("someone/cars")


@pytest.mark.skipif(sys.platform == "win32", reason="there are no limits to set")
def test_a_write_that_stops_half_way_leaves_nothing(cars, hub, tmp_path, car_photo):
    """As on a full disk, but for real: the process may write no file above 1 MB."""
    limited = "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)); "
    limited += "from twincar.cli import main; sys.argv[0] = 'twincar'; main()"
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HUB_CACHE": str(tmp_path / "cache"),
                                "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}  # fmt: skip
    command = [sys.executable, "-c", limited, "predict", str(car_photo), "--model", "someone/cars"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert "File too large" in done.stderr and "make room there" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert kept(tmp_path) == [(cars / "config.json").stat().st_size]


def test_a_pull_that_is_cut_leaves_the_old_model(cars, hub, slept, tmp_path):
    out = push_pull.pull("someone/cars", tmp_path / "mine")
    before = {file.name: file.read_bytes() for file in out.iterdir()}
    (cars / "model.safetensors").write_bytes(b"another model" * 1000)
    hub.go_wrong(WEIGHTS, "hung up")
    with pytest.raises(ModelError, match="cannot be reached"):
        push_pull.pull("someone/cars", out)
    assert {file.name: file.read_bytes() for file in out.iterdir()} == before
