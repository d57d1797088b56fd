"""The Space: its folder is built and served, and the real client uploads it to a local Hub server."""

import re
import shutil
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from huggingface_hub import SpaceCard
from packaging.requirements import Requirement
from typer.testing import CliRunner

from tests.helpers.hub_server import TOKEN
from tests.helpers.visit import served
from twincar import Predictor
from twincar.cli import app
from twincar.config import CHECKOUT
from twincar.modeling.publishing import push_pull, space

MODEL = {"models/twincar/README.md", "models/twincar/config.json", "models/twincar/model.safetensors"}


def twincar(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture
def checkout(tmp_path, tiny_model, monkeypatch):
    """A checkout of the project whose published model is the tiny one, with unrelated files."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for name in ("app.py", "requirements.txt", "LICENSE", "README.md"):
        shutil.copy(CHECKOUT / name, folder)
    for name in ("twincar", "reports", "docs"):
        shutil.copytree(CHECKOUT / name, folder / name)
    shutil.copytree(tiny_model, folder / "models" / "twincar")
    for litter in ("twincar/__pycache__/x.pyc", "data/cars.csv", ".venv/python", "reports/.x.tmp", "secret.env",
                   "models/twincar/notes.txt"):  # fmt: skip
        (folder / litter).parent.mkdir(parents=True, exist_ok=True)
        (folder / litter).write_text("litter")
    monkeypatch.setattr(space, "CHECKOUT", folder)
    return folder


def front(card: str) -> dict:
    return SpaceCard(card).data.to_dict()


def test_the_readme_is_a_valid_card():
    known = front((CHECKOUT / "README.md").read_text())
    assert known["sdk"] == "gradio" and known["app_file"] == "app.py" and (CHECKOUT / known["app_file"]).is_file()
    wanted = next(
        Requirement(line) for line in (CHECKOUT / "requirements.txt").read_text().splitlines() if "gradio" in line
    )
    assert wanted.specifier.contains(known["sdk_version"])
    assert (
        re.search(r'requires-python = ">=(.*)"', (CHECKOUT / "pyproject.toml").read_text())[1]
        == known["python_version"]
    )
    assert (CHECKOUT / known["thumbnail"]).is_file()
    assert len(known["short_description"]) <= 60  # the Hub's limit
    colours = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
    assert {known["colorFrom"], known["colorTo"]} <= colours


@pytest.mark.slow
def test_a_dry_run_builds_the_folder_that_serves_the_page(checkout, hub, car_photo, tmp_path):
    folder = tmp_path / "space"
    done = twincar("space", "someone/page", "--dry-run", "--out", folder)
    assert done.exit_code == 0, done.output
    assert not hub.commits
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files > MODEL | {
        "app.py",
        "requirements.txt",
        "README.md",
        "twincar/stanford_cars.txt",
        "twincar/ui/page.js",
        "reports/two_passes.csv",
        "reports/flagship/figures/grad_cam.jpg",
    }
    assert not [path for path in files if Path(path).suffix not in (
        ".py", ".txt", ".css", ".js", ".html", ".json", ".csv", ".md", ".png", ".jpg", ".safetensors", ".typed",
        "")]  # fmt: skip
    assert not files & {"secret.env", "data/cars.csv", "models/twincar/notes.txt"}
    assert all(name in done.output for name in files)
    known = front((folder / "README.md").read_text())
    assert known["thumbnail"] == "https://huggingface.co/spaces/someone/page/resolve/main/docs/page.png"
    assert "models" not in known

    run = tmp_path / "run"
    run.mkdir()
    with served(run, folder / "app.py", PYTHONPATH=str(folder)) as (url, _):
        answer, _ = Client(url, verbose=False).predict(handle_file(car_photo), api_name="/identify")
    truth = Predictor.from_pretrained(checkout / "models" / "twincar")(car_photo)
    assert [guess["class_name"] for guess in answer["top"]] == [guess.class_name for guess in truth.top(5)]

    assert twincar("space", "someone/page", "--dry-run", "--out", folder).exit_code == 2  # no longer empty


def test_the_upload_replaces_the_files_of_the_space(checkout, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    old = hub.root / "spaces" / "someone" / "page"
    old.mkdir(parents=True)
    (old / "old.py").write_text("pass")
    hub.repos["spaces/someone/page"]["variables"] = {
        "TWINCAR_MODEL": {"value": "someone/old@1"},
        "OTHER": {"value": ""},
    }
    done = twincar("space", "someone/page", "--message", "Second")
    assert done.exit_code == 0, done.output
    (commit,) = hub.commits
    assert (commit["message"], commit["deleted"]) == ("Second", ["old.py"])
    files = {path.relative_to(old).as_posix(): path.read_bytes() for path in old.rglob("*") if path.is_file()}
    assert files.keys() == space.collect_files("someone/page").keys()
    for name in ("app.py", "twincar/ui/style.css", "models/twincar/model.safetensors"):
        assert files[name] == (checkout / name).read_bytes()
    assert hub.repos["spaces/someone/page"]["variables"].keys() == {"OTHER"}  # it uses its own copy now


@pytest.mark.slow
def test_with_a_model_it_is_pinned_to_a_commit(checkout, hub, monkeypatch, tmp_path, car_photo):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    commit = push_pull.push(checkout / "models" / "twincar", "someone/cars")
    done = twincar("space", "someone/page", "--model", "someone/cars@main", "--private")
    assert done.exit_code == 0, done.output
    settings = hub.repos["spaces/someone/page"]
    pinned = f"someone/cars@{commit}"
    assert settings == {"private": True, "sdk": "gradio", "variables": {"TWINCAR_MODEL": {"value": pinned}}}
    folder = hub.root / "spaces" / "someone" / "page"
    assert not (folder / "models").exists()
    known = front((folder / "README.md").read_text())
    assert known["models"] == ["someone/cars"]
    assert known["preload_from_hub"] == [f"someone/cars config.json,model.safetensors {commit}"]

    run = tmp_path / "run"  # as on the Space: its folder, its variable, and a Hub
    run.mkdir()
    environment = {
        "PYTHONPATH": str(folder),
        "TWINCAR_MODEL": pinned,
        "HF_ENDPOINT": hub.url,
        "HF_HUB_DISABLE_XET": "1",
    }
    with served(run, folder / "app.py", **environment) as (url, _):
        answer, _ = Client(url, verbose=False).predict(handle_file(car_photo), api_name="/identify")
    assert len(answer["top"]) == 5


def test_refusals_are_one_sentence(checkout, hub, monkeypatch):
    for words, message in (
        (("space", "someone/page"), "log in with `hf auth login`"),
        (("space", "someone/page", "--model", "someone/nothing"), "HTTP 404"),
        (("space", "no name"), "use the form user/repo"),
    ):
        done = twincar(*words)
        assert done.exit_code == 2
        assert message in done.output
        assert len(done.output.strip().splitlines()) == 1
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    push_pull.push(checkout / "models" / "twincar", "someone/secret", private=True)
    hub.commits.clear()
    done = twincar("space", "someone/page", "--model", "someone/secret")
    assert done.exit_code == 2
    assert "someone/secret is private, so the Space could not download it" in done.output
    (checkout / "app.py").unlink()
    done = twincar("space", "someone/page", "--dry-run")
    assert done.exit_code == 2
    assert "run `twincar space` from a checkout" in done.output
    assert not hub.commits
