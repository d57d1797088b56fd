"""Upload to the Hub and download: the command line and the real client, against a local Hub server."""

import json
import os
import subprocess
import sys

import pytest
from huggingface_hub import ModelCard
from typer.testing import CliRunner

from tests.conftest import CLASSES
from tests.helpers.configs import config_of
from tests.helpers.hub_server import TOKEN
from twincar import Predictor
from twincar.cli import app
from twincar.modeling.hub import model_folder as published
from twincar.modeling.hub.card import METRICS, model_card
from twincar.modeling.hub.model_folder import ModelError
from twincar.modeling.publishing import push_pull

SENT = ["README.md", "config.json", "model.safetensors"]


def twincar(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture
def token(monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)


@pytest.fixture
def measured(tiny_model, tmp_path):
    """The tiny model with scores, as `twincar publish` writes it, and with unrelated files."""
    model = published.load(tiny_model)
    model.config["scores"] = {"split": "val", "pictures": 10} | {name: 0.25 for name in METRICS}
    folder = published.save(model, tmp_path / "measured")
    (folder / "notes.txt").write_text("private")
    (folder / "README.md").write_text("# typed by hand: 100 %")
    return folder


def test_the_same_bytes_come_back(hub, token, measured, tmp_path, car_photo):
    done = twincar("push", measured, "someone/cars", "--message", "First")
    assert done.exit_code == 0, done.output
    commit = hub.head("someone/cars", "main")
    assert f"Published as someone/cars@{commit}" in done.output
    assert [{**made, "sent": sorted(made["sent"])} for made in hub.commits] == [
        {"repo": "someone/cars", "branch": "main", "sent": SENT, "deleted": [], "message": "First"}
    ]
    assert not hub.repos["someone/cars"]["private"]

    folder = tmp_path / "back"
    assert twincar("pull", f"someone/cars@{commit}", "--out", folder).exit_code == 0
    assert sorted(file.name for file in folder.iterdir()) == SENT
    for name in ("config.json", "model.safetensors"):
        assert (folder / name).read_bytes() == (measured / name).read_bytes()
    answers = [Predictor.from_pretrained(name)(car_photo).probabilities for name in (measured, folder)]
    assert (answers[0] == answers[1]).all()


def test_the_card_is_generated_from_the_config_and_parsed_by_the_hub_client(hub, token, measured):
    push_pull.push(measured, "someone/cars")
    card = ModelCard.load(hub.root / "someone" / "cars" / "README.md")
    assert "typed by hand" not in card.content
    assert 'from_pretrained("someone/cars")' in card.content
    results = {result.metric_name: result for result in card.data.eval_results}
    assert len(results) == len(METRICS)
    assert {result.metric_value for result in results.values()} == {0.25}
    assert {(result.task_type, result.dataset_split) for result in results.values()} == {
        ("image-classification", "val")
    }
    assert results["Top-3 accuracy"].metric_args == {"top_k": 3}


def test_an_example_is_uploaded_with_the_models_prediction(hub, token, measured, car_photo):
    (measured / "example.jpg").write_bytes(car_photo.read_bytes())
    push_pull.push(measured, "someone/cars")
    assert "example.jpg" in hub.commits[-1]["sent"]
    (widget,) = ModelCard.load(hub.root / "someone" / "cars" / "README.md").data.widget
    assert widget["src"] == "example.jpg"
    truth = Predictor.from_pretrained(measured)(car_photo).top(5)
    assert [answer["label"] for answer in widget["output"]] == [guess.class_name for guess in truth]
    assert [answer["score"] for answer in widget["output"]] == pytest.approx([g.probability for g in truth], abs=1e-4)


def test_a_dry_run_uploads_nothing(hub, measured):
    done = twincar("push", measured, "someone/cars", "--dry-run")
    assert done.exit_code == 0, done.output
    for name in SENT:
        assert name in done.output
    assert f"{(measured / 'model.safetensors').stat().st_size:,}" in done.output
    assert "notes.txt" not in done.output
    assert "image-classification on the prepared data, val: Top-1 accuracy (accuracy) 0.25" in done.output
    assert (list(hub.root.iterdir()), hub.commits) == ([], [])


def test_private_and_on_a_branch(hub, token, measured):
    assert twincar("push", measured, "someone/secret", "--private", "--revision", "next").exit_code == 0
    assert hub.repos["someone/secret"]["private"]
    assert hub.commits[-1]["branch"] == "next"
    assert not (hub.root / "someone" / "secret" / "config.json").exists()  # main is unchanged
    assert published.load("someone/secret@next").config["class_names"] == CLASSES
    with pytest.raises(ModelError, match="HTTP 404"):
        published.load("someone/secret@last")


def test_private_is_refused_for_a_public_repo(hub, token, measured):
    push_pull.push(measured, "someone/cars")
    done = twincar("push", measured, "someone/cars", "--private")
    assert done.exit_code == 2
    assert "already exists and is public" in done.output
    assert len(hub.commits) == 1


def test_the_licence_file_is_required_and_uploaded(hub, token, measured):
    config = config_of(measured) | {"license_name": "non-commercial"}
    (measured / "config.json").write_text(json.dumps(config))
    done = twincar("push", measured, "someone/cars")
    assert done.exit_code == 2
    assert "put that file into the folder first" in done.output
    (measured / "LICENSE").write_text("Not for sale.")
    push_pull.push(measured, "someone/cars")
    assert "LICENSE" in hub.commits[-1]["sent"]


@pytest.mark.parametrize(
    ("with_token", "repo", "words"),
    [
        (None, "someone/cars", "log in with `hf auth login`"),
        (TOKEN, "other/cars", "no write access to other/cars"),
        (TOKEN, "no name", "use the form user/repo"),
    ],
)
def test_refusals_are_one_sentence(hub, measured, monkeypatch, with_token, repo, words):
    if with_token:
        monkeypatch.setenv("HF_TOKEN", with_token)
    done = twincar("push", measured, repo)
    assert done.exit_code == 2
    assert words in done.output
    assert len(done.output.strip().splitlines()) == 1
    assert not hub.commits


def test_a_folder_without_a_model_is_not_uploaded(hub, token, measured, tmp_path):
    (measured / "model.safetensors").write_bytes(b"half a file")
    for folder in (measured, tmp_path / "nowhere", tmp_path):
        assert twincar("push", folder, "someone/cars").exit_code == 2
    assert list(hub.root.iterdir()) == []


def test_a_pinned_model_does_not_change(hub, token, measured):
    first = push_pull.push(measured, "someone/cars")
    model = published.load(measured)
    model.config["name"] = "Second"
    second = push_pull.push(published.save(model, measured), "someone/cars")
    assert first != second
    assert [published.load(f"someone/cars{at}").config.get("name") for at in (f"@{first}", f"@{second}", "")] == [
        None, "Second", "Second",
    ]  # fmt: skip


def test_weights_of_another_model_are_refused_and_the_old_model_stays(hub, token, measured, tmp_path):
    push_pull.push(measured, "someone/cars")
    folder = push_pull.pull("someone/cars", tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    weights = hub.root / "someone" / "cars" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    done = twincar("pull", "someone/cars", "--out", folder)
    assert done.exit_code == 2
    assert "do not match its config.json" in done.output
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    with pytest.raises(ModelError, match="do not match"):
        Predictor.from_pretrained("someone/cars")


def test_the_page_reports_damaged_weights_and_uses_its_own_model(hub, token, measured, tiny_model, tmp_path):
    import app as page

    push_pull.push(measured, "someone/cars")
    (hub.root / "someone" / "cars" / "model.safetensors").write_bytes(b"something else")
    predictor, notice = page.load("someone/cars@main", tiny_model)
    assert predictor.class_names == tuple(CLASSES)
    assert "do not match" in notice and "the model that it was shipped with" in notice


def test_pull_removes_the_licence_of_another_model(hub, token, measured, tmp_path):
    push_pull.push(measured, "someone/cars")
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "LICENSE").write_text("of another")
    (folder / "mine.txt").write_text("mine")
    assert sorted(file.name for file in push_pull.pull("someone/cars", folder).iterdir()) == sorted([*SENT, "mine.txt"])


@pytest.mark.parametrize(
    ("config", "licence"),
    [
        ({}, {}),
        ({"license": "mit"}, {"license": "mit"}),
        (
            {"license_name": "non-commercial"},
            {"license": "other", "license_name": "non-commercial", "license_link": "LICENSE"},
        ),
    ],
)
def test_the_card_has_the_licence_of_the_config(config, licence):
    full = {"architecture": {"name": "resnet18"}, "class_names": CLASSES, "input": {"size": 64}} | config
    data = ModelCard(model_card(full)).data.to_dict()
    assert {key: value for key, value in data.items() if key.startswith("license")} == licence


@pytest.mark.parametrize(
    ("training", "base"),
    [
        ({"init": "imagenet"}, "timm/resnet18.tv_in1k"),
        ({"init": "some_file.safetensors"}, None),
        ({"init": "none"}, None),
        ({"init": "imagenet", "base_model": "timm/other"}, "timm/other"),
    ],
)
def test_the_base_model_is_named_if_it_is_on_the_hub(training, base):
    config = {"architecture": {"name": "resnet18"}, "class_names": CLASSES, "input": {"size": 64}, "training": training}
    assert ModelCard(model_card(config)).data.base_model == base


@pytest.mark.slow
def test_python_m_twincar_uses_the_hub_of_hf_endpoint(hub, token, measured, tmp_path):
    environment = os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "twincar", "push", str(measured), "someone/cars"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "Published as someone/cars@" in " ".join(done.stdout.split())
