"""Model folders: saved, loaded, downloaded by the real Hub client from a local server, and rejected if damaged."""

import json
import pickle
import shutil
import socket

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save
from torchvision.models import resnet50

from tests.conftest import CLASSES
from tests.helpers.configs import config_of
from twincar import Predictor
from twincar.config import STANFORD_CARS
from twincar.modeling.hub import model_folder as published
from twincar.modeling.hub.model_folder import CarModel, ModelError


@pytest.fixture
def on_hub(hub, tiny_model):
    repo = hub.root / "someone" / "cars"
    repo.mkdir(parents=True)
    for file in tiny_model.iterdir():
        (repo / file.name).write_bytes(file.read_bytes())
    return repo


def test_a_folder_has_the_files_of_a_hub_repo(tiny_model):
    assert sorted(file.name for file in tiny_model.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    weights = load_file(tiny_model / "model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float16, torch.int64}
    assert "layer4.1.conv2.weight" in weights  # the names of timm and torchvision
    card = (tiny_model / "README.md").read_text()
    assert card.startswith("---\n")
    assert "library_name: timm" in card and "- twincar" in card


def test_save_and_load_give_the_same_answer(tiny_model, tmp_path, car_photo):
    first = published.load(tiny_model)
    again = published.load(published.save(first, tmp_path / "again"))
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (tiny_model / "model.safetensors").read_bytes()
    answers = [Predictor(model)(car_photo).probabilities for model in (first, again)]
    assert (answers[0] == answers[1]).all()


def test_a_failed_save_leaves_the_old_model_intact(tiny_model, tmp_path, monkeypatch):
    model = published.load(tiny_model)
    folder = published.save(model, tmp_path / "model")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    monkeypatch.setattr(published, "model_card", lambda config, **options: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        published.save(model, folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_from_the_hub_by_name(on_hub, tiny_model, car_photo):
    there, here = (Predictor.from_pretrained(name)(car_photo) for name in ("someone/cars", tiny_model))
    assert (there.probabilities == here.probabilities).all()
    assert there.top(1) == here.top(1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("someone/nothing", "HTTP 404"),
        ("someone/gated", "HTTP 403"),
        ("not a name", "neither a folder nor the name"),
        ("a/b/c", "neither a folder nor the name"),
    ],
)
def test_refusals_of_the_hub_are_one_sentence(on_hub, name, words):
    with pytest.raises(ModelError, match=words) as refusal:
        Predictor.from_pretrained(name)
    assert "\n" not in str(refusal.value)


def test_no_network_is_one_sentence(on_hub, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        f"http://127.0.0.1:{port}/{{repo_id}}/resolve/{{revision}}/{{filename}}",
    )
    with pytest.raises(ModelError, match="cannot be reached"):
        Predictor.from_pretrained("someone/cars")


class Bomb:
    def __reduce__(self):
        return (exec, ("raise SystemExit('code in a weights file was run')",))


def test_a_repo_with_only_a_pickle_is_refused(on_hub):
    (on_hub / "model.safetensors").unlink()
    (on_hub / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError, match="HTTP 404"):
        Predictor.from_pretrained("someone/cars")


@pytest.mark.parametrize("name", ["model.pth", "model.safetensors", "model.pt"])
def test_a_planted_pickle_is_refused(tmp_path, name):
    (tmp_path / name).write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(ModelError):
        Predictor.from_pretrained(tmp_path / name)
    torch.save(Bomb(), tmp_path / name)
    with pytest.raises(ModelError):
        Predictor.from_pretrained(tmp_path / name)


@pytest.mark.parametrize("head", ["linear", "two_layer"])
@pytest.mark.parametrize("wrap", [lambda state: state, lambda state: {"model_state_dict": state}])
def test_checkpoints_of_the_original_twincar(tmp_path, car_photo, head, wrap):
    torch.manual_seed(0)
    network = resnet50(num_classes=196)
    if head == "two_layer":
        network.fc = torch.nn.Sequential(
            torch.nn.Linear(2048, 512), torch.nn.ReLU(), torch.nn.Dropout(0.2), torch.nn.Linear(512, 196)
        )
    torch.save(wrap(network.state_dict()), tmp_path / "twincar.pth")
    model = published.load(tmp_path / "twincar.pth")
    images = torch.rand(1, 3, 64, 64)
    torch.testing.assert_close(model(images), network.eval()(images))
    assert Predictor(model)(car_photo).top(1)[0].class_name in STANFORD_CARS


def reconfigure(folder, **changes):
    config = config_of(folder)
    (folder / "config.json").write_text(json.dumps(config | changes))


def replace_weights(folder, content):
    """Without a checksum in the config, as in configs from before there was one."""
    (folder / "model.safetensors").write_bytes(content)
    reconfigure(folder, weights_sha256=None)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
        (lambda folder: (folder / "config.json").write_text("{"), "is broken"),
        (lambda folder: (folder / "config.json").write_text("{}"), "lacks"),
        (lambda folder: (folder / "model.safetensors").unlink(), "no weights file"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"x" * 100), "do not match its config.json"),
        (lambda folder: replace_weights(folder, b"x" * 100), "is no complete safetensors"),
        (lambda folder: replace_weights(folder, save({"fc.weight": torch.zeros(5, 512)})), "missing"),
        (lambda folder: reconfigure(folder, class_names=CLASSES[:2]), "have different shapes"),
    ],
)
def test_damaged_folders_are_one_sentence(tiny_model, tmp_path, damage, words):
    folder = published.save(published.load(tiny_model), tmp_path / "model")
    damage(folder)
    with pytest.raises(ModelError, match=words):
        Predictor.from_pretrained(folder)


def test_the_card_shows_only_what_was_measured():
    config = {
        "architecture": {"name": "resnet18", "head": "linear"},
        "class_names": CLASSES,
        "input": {"size": 64},
        "scores": {"split": "val", "pictures": 815, "top1": 0.91234, "top1_interval": [0.89, 0.93]},
        "notice": "Mind the licence.",
    }
    card = published.model_card(config)
    assert "| Top-1 accuracy | 91.2 % (89.0 % to 93.0 %) |" in card.replace("\N{NO-BREAK SPACE}", " ")
    assert "Top-5" not in card
    assert "value: 0.9123" in card
    assert "Mind the licence." in card
    assert np.isfinite(len(CarModel(config).state_dict()))


@pytest.fixture
def here(tiny_model, tmp_path, monkeypatch):
    """A working folder with a model, two runs of which one is published, and other files."""
    for folder in ("models/twincar", "runs/published/model"):
        shutil.copytree(tiny_model, tmp_path / folder)
    for run in ("published", "stopped"):
        (tmp_path / "runs" / run / "checkpoints").mkdir(parents=True)
        (tmp_path / "runs" / run / "checkpoints" / "best.ckpt").write_bytes(b"PK")
    (tmp_path / "empty").mkdir()
    (tmp_path / "photo.jpg").write_bytes(b"")
    (tmp_path / "other.ckpt").write_bytes(b"PK")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("runs/published", "is the folder of a training run, not a published model: pass runs/published/model, which"),
        ("runs/published/checkpoints/best.ckpt", "is part of a training run, .*: pass runs/published/model, which"),
        ("runs/stopped/checkpoints", "is part of a training run, .*: `twincar publish runs/stopped --out"),
        ("runs/stopped/checkpoints/best.ckpt", "`twincar publish runs/stopped --out runs/stopped/model` publishes it"),
        ("other.ckpt", "is a checkpoint, not a published model: pass its run's folder to `twincar publish`"),
        ("photo.jpg", "is not a published model: pass the folder of a published model, the name of a Hub repo"),
        ("models/twincar/model.safetensors", "is a file of a published model: pass its folder, models/twincar"),
        ("models/twincar/config.json", "is a file of a published model: pass its folder, models/twincar"),
        ("models", "has no config.json, but contains published models: pass one, such as models/twincar"),
        ("empty", "The folder empty is empty; pass"),
        ("modles/twincar", r"\. Did you mean models/twincar\?"),
        ("models/twincat", r"\. Did you mean models/twincar\?"),
        ("models/twincat@main", r"\. Did you mean models/twincar\?"),
        ("./modles/twincar", r"\. Did you mean models/twincar\?"),
        ("runs/publishd/model", r"\. Did you mean runs/published/model\?"),
    ],
)
def test_what_is_no_model_is_named_with_what_to_pass_instead(name, sentence, here, hub):
    with pytest.raises(ModelError, match=sentence) as refused:
        published.load(name)
    assert "\n" not in str(refused.value)


def test_a_name_unlike_any_folder_gets_no_suggestion(here, hub):
    with pytest.raises(ModelError, match=r"HF_TOKEN\.$"):
        published.load("someone/else")
