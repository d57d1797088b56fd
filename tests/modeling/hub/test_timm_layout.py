"""A model folder as timm and transformers read it: one answer from all three libraries, without the network."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from tests.conftest import CLASSES, draw_car
from twincar import Predictor
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.model_folder import CarModel

SIDE = 96


def saved(folder, name, head="linear", dropout=0.0):
    torch.manual_seed(0)
    config = {
        "architecture": {"name": name, "head": head, "dropout": dropout},
        "class_names": CLASSES,
        "input": {"size": SIDE},
    }
    model = CarModel(config)
    with torch.no_grad():  # random weights would give all classes nearly the same probability
        for parameter in model.network.fc.parameters():
            parameter.mul_(20)
    return model_folder.save(model, folder)


@pytest.fixture(scope="module", params=["resnet18", "timm/tf_efficientnet_lite0", "timm/convnext_atto"])
def folder(request, tmp_path_factory):
    return saved(tmp_path_factory.mktemp("models") / "tiny", request.param)


@pytest.fixture(scope="module")
def photos() -> list[Image.Image]:
    return [draw_car(label, seed=3) for label in range(5)]


@pytest.fixture(scope="module")
def expected(folder, photos) -> np.ndarray:
    predictor = Predictor.from_pretrained(folder, engine="torch:f32")
    return np.stack([answer.probabilities for answer in predictor.batch(photos, refine=False)])


def test_timm_gives_the_same_answer(folder, photos, expected):
    import timm

    model = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    with torch.no_grad():
        found = model(torch.stack([transform(photo) for photo in photos])).softmax(1).numpy()
    assert list(model.pretrained_cfg["label_names"]) == CLASSES
    assert np.abs(found - expected).max() < 1e-3 and (found.argmax(1) == expected.argmax(1)).all()


def test_transformers_gives_the_same_answer(folder, photos, expected, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import transformers

    classify = transformers.pipeline("image-classification", model=str(folder))
    for photo, probabilities in zip(photos, expected, strict=True):
        answer = {each["label"]: each["score"] for each in classify(photo, top_k=5)}
        assert max(answer, key=lambda name: answer[name]) == CLASSES[probabilities.argmax()]
        assert np.abs([answer[name] - p for name, p in zip(CLASSES, probabilities, strict=True)]).max() < 1e-3


def test_the_hub_id_is_read_too(folder, hub, photos, expected, monkeypatch):
    """`hf-hub:` downloads with the real client."""
    import timm

    shutil.copytree(folder, hub.folder("user/tiny"), dirs_exist_ok=True)
    model = timm.create_model("hf-hub:user/tiny", pretrained=True).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config(model=model))
    with torch.no_grad():
        found = model(transform(photos[0])[None]).softmax(1)[0].numpy()
    assert np.abs(found - expected[0]).max() < 1e-3


@pytest.mark.parametrize(
    ("name", "head"), [("resnet18", "two_layer"), ("resnet18", "bilinear"), ("timm/vit_tiny_patch16_224", "linear")]
)
def test_a_network_that_timm_does_not_have_claims_nothing(tmp_path, name, head):
    folder = saved(tmp_path / "model", name, head)
    content = json.loads((folder / "config.json").read_text())
    assert content.keys() == {"label_names", "twincar"}
    assert Predictor.from_pretrained(folder).class_names == tuple(CLASSES)


def test_a_folder_in_the_layout_of_before_still_loads(folder, expected, photos, tmp_path):
    """config.json was TwinCar's settings only, and the names of the tensors were those of its own network."""
    model = model_folder.load(folder)
    from safetensors.torch import save_file

    save_file({key: value.half() for key, value in model.network.state_dict().items()}, tmp_path / "model.safetensors")
    config = {key: value for key, value in model.config.items() if key != "weights_sha256"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    predictor = Predictor.from_pretrained(tmp_path, engine="torch:f32")
    assert np.abs(predictor(photos[0], refine=False).probabilities - expected[0]).max() < 1e-5
