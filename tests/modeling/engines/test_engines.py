"""Engines agree with torch, are cached, fall back to torch, and batch the calls of several threads."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from tests.conftest import CLASSES, draw_car
from tests.helpers.fake_predictor import fake_predictor
from twincar import Predictor
from twincar.cli import app
from twincar.config import CHECKOUT, IMAGENET_MEAN, IMAGENET_STD
from twincar.features.transforms import squash
from twincar.modeling.detection.detector import Detector
from twincar.modeling.engines import openvino_engine
from twincar.modeling.engines.backbone import Backbone, BackboneOutput
from twincar.modeling.engines.base import MAX_BATCH, BatchingEngine, EngineError
from twincar.modeling.engines.choose import release_weights
from twincar.modeling.hub import model_folder


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("TWINCAR_CACHE", str(tmp_path))
    return tmp_path / "engines"


def model_of(architecture: dict, flip=False) -> model_folder.CarModel:
    torch.manual_seed(0)
    config = {"architecture": architecture, "class_names": CLASSES, "input": {"size": 64, "flip": flip}}
    return model_folder.CarModel(config)


@pytest.mark.parametrize(
    ("architecture", "flip"),
    [
        ({"name": "resnet18", "head": "linear"}, True),
        ({"name": "timm/tf_efficientnet_lite0", "head": "two_layer"}, False),
        ({"name": "timm/vit_tiny_patch16_224", "head": "linear"}, False),
        ({"name": "resnet18", "head": "bilinear"}, False),
    ],
)
def test_openvino_agrees_with_torch(architecture, flip, cache):
    model = model_of(architecture, flip)
    photos = [draw_car(label) for label in range(3)]
    truth = Predictor(model, "cpu", "torch").batch(photos)
    fast = Predictor(model, "cpu", "openvino:f32")
    assert fast.engine.name == "openvino:f32"
    release_weights(fast.engine, fast.network)  # as the page does
    assert any(weight.is_meta for weight in fast.network.parameters())
    for photo, expected, answer in zip(photos, truth, fast.batch(photos), strict=True):
        np.testing.assert_allclose(answer.probabilities, expected.probabilities, atol=1e-4)
        np.testing.assert_allclose(fast(photo).probabilities, expected.probabilities, atol=1e-4)
        first, second = (guess.class_name for guess in expected.top(2))
        np.testing.assert_allclose(answer.heatmap(first), expected.heatmap(first), atol=2e-2)
        np.testing.assert_allclose(answer.difference(first, second), expected.difference(first, second), atol=2e-2)


def random_detector() -> Detector:
    """A detector for a ResNet-18; its scores are far from 0.5, and its boxes differ from cell to cell."""
    detector = Detector(256, 512).eval().requires_grad_(False)
    detector.predict.weight.mul_(10)
    return detector


@pytest.fixture
def model_with_detector() -> model_folder.CarModel:
    """A model whose detector has random weights."""
    model = model_of({"name": "resnet18", "head": "linear"}, flip=True)
    model.open_set = fake_predictor().open_set
    model.detector = random_detector()
    return model


def test_openvino_predicts_the_detections_of_torch(model_with_detector, cache):
    pictures = [squash(draw_car(label), 64) for label in range(3)]
    truth, output = (
        Predictor(model_with_detector, "cpu", engine).run(pictures)[0].detections.numpy()
        for engine in ("torch", "openvino:f32")
    )
    assert output.shape == (3, 5, 4, 4)
    assert (np.ptp(truth, (0, 2, 3)) > 0.1).all()
    np.testing.assert_allclose(output, truth, atol=1e-3)


def test_a_wrongly_compiled_detector_is_rejected(model_with_detector, cache, monkeypatch):
    convert, other = openvino_engine.convert, random_detector()

    def wrong(backbone: Backbone, size: int):
        return convert(Backbone(backbone.network, IMAGENET_MEAN, IMAGENET_STD, other), size)

    monkeypatch.setattr(openvino_engine, "convert", wrong)
    with pytest.raises(EngineError, match="differ from torch's"):
        Predictor(model_with_detector, "cpu", "openvino:f32")


@pytest.mark.parametrize("wanted", ["torch:bf16", "openvino:bf16"])
def test_half_precision_is_close(wanted, tiny_model, car_photo, cache):
    answer = Predictor.from_pretrained(tiny_model, engine=wanted)(car_photo)
    truth = Predictor.from_pretrained(tiny_model, engine="torch:f32")(car_photo)
    np.testing.assert_allclose(answer.probabilities, truth.probabilities, atol=0.02)
    assert answer.overlay().size == truth.photo.size


def count_conversions(monkeypatch) -> list:
    made, convert = [], openvino_engine.convert
    monkeypatch.setattr(openvino_engine, "convert", lambda *arguments: made.append(arguments) or convert(*arguments))
    return made


def test_the_second_start_compiles_nothing(tiny_model, car_photo, cache, monkeypatch):
    made = count_conversions(monkeypatch)
    first, again = (Predictor.from_pretrained(tiny_model, engine="openvino:f32") for _ in range(2))
    assert len(made) == 1
    assert (first(car_photo).probabilities == again(car_photo).probabilities).all()
    other = model_folder.load(tiny_model)
    with torch.no_grad():
        other.network.conv1.weight[0, 0, 0, 0] += 1e-3  # other weights are another cache entry
    Predictor(other, engine="openvino:f32")
    assert len(made) == len(list(cache.glob("*.openvino"))) == 2


@pytest.mark.slow
def test_a_damaged_cache_is_built_again(tiny_model, car_photo, cache, monkeypatch):
    truth = Predictor.from_pretrained(tiny_model, engine="openvino:f32")(car_photo).probabilities
    (file,) = cache.glob("*.openvino")
    whole = file.read_bytes()
    middle = len(whole) // 2
    for damaged in (
        b"",
        whole[:middle],
        whole[:middle] + bytes(4096) + whole[middle + 4096 :],
        b"{}\n" + whole,
        b"[]\n",
    ):
        made = count_conversions(monkeypatch)
        file.write_bytes(damaged)
        answer = Predictor.from_pretrained(tiny_model, engine="openvino:f32")(car_photo)
        assert len(made) == 1
        assert (answer.probabilities == truth).all()
        monkeypatch.undo()
        monkeypatch.setenv("TWINCAR_CACHE", str(cache.parent))
        head, _, blob = file.read_bytes().partition(b"\n")
        assert b"f32" in head and len(blob) > 10_000_000  # complete again


RACE = """
import sys
from twincar import Predictor
from twincar.modeling.engines import openvino_engine
convert = openvino_engine.convert
def logged(*arguments):
    print("converted")
    return convert(*arguments)
openvino_engine.convert = logged
Predictor.from_pretrained(sys.argv[1], engine="openvino:f32")
"""


@pytest.mark.slow
def test_processes_that_start_at_once_convert_once(tiny_model, cache):
    command = [sys.executable, "-c", RACE, str(tiny_model)]
    running = [subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=300)[0].split() for process in running]
    assert [process.returncode for process in running] == [0, 0]
    assert sorted(said) == [[], ["converted"]]
    assert len(list(cache.glob("*.openvino"))) == 1


def test_a_cache_that_cannot_be_written_costs_only_time(tiny_model, car_photo, tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("TWINCAR_CACHE", str(tmp_path / "file"))
    predictor = Predictor.from_pretrained(tiny_model, engine="openvino:f32")
    assert predictor(car_photo).probabilities.sum() == pytest.approx(1, abs=1e-5)
    assert "cannot be cached" in caplog.text


@pytest.mark.slow
def test_the_cache_keeps_the_most_recently_used(cache, monkeypatch):
    monkeypatch.setattr(openvino_engine, "MAX_CACHED", 2)
    for name in ("resnet18", "resnet34", "resnet18"):
        Predictor(model_of({"name": name, "head": "linear"}), engine="openvino:f32")
    kept = set(cache.glob("*.openvino"))
    Predictor(model_of({"name": "timm/resnet10t", "head": "linear"}), engine="openvino:f32")
    left = set(cache.glob("*.openvino"))
    assert len(kept) == len(left) == 2
    assert len(kept & left) == 1  # the ResNet-18, the last one used


def test_torch_is_the_fallback_where_openvino_does_not_work(tiny_model, cache, monkeypatch, caplog):
    monkeypatch.delenv("TWINCAR_ENGINE")
    monkeypatch.setattr(openvino_engine, "TOLERANCE", {"f32": -1.0, "bf16": -1.0})  # every deviation is too large
    with caplog.at_level(logging.WARNING):
        assert Predictor.from_pretrained(tiny_model, device="cpu").engine.name == "torch:f32"
    assert "using torch instead" in caplog.text
    monkeypatch.setitem(sys.modules, "openvino", None)  # not installed
    assert Predictor.from_pretrained(tiny_model, device="cpu").engine.name == "torch:f32"
    with pytest.raises(EngineError, match="pip install openvino"):
        Predictor.from_pretrained(tiny_model, device="cpu", engine="openvino")


def test_bf16_is_not_used_where_it_deviates(tiny_model, cache, monkeypatch):
    monkeypatch.delenv("TWINCAR_ENGINE")
    monkeypatch.setattr(openvino_engine, "TOLERANCE", openvino_engine.TOLERANCE | {"bf16": 0.0})
    assert Predictor.from_pretrained(tiny_model, device="cpu").engine.name == "openvino:f32"


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("tensorrt", "no engine 'tensorrt'"),
        ("torch:int3", "no precision 'int3'"),
        ("openvino:f64", "no precision 'f64'"),
    ],
)
def test_an_unknown_engine_is_one_sentence(wanted, says, tiny_model, car_photo, monkeypatch):
    done = CliRunner().invoke(app, ["predict", str(car_photo), "--model", str(tiny_model), "--engine", wanted])
    assert done.exit_code == 2
    assert says in done.output
    monkeypatch.setenv("TWINCAR_ENGINE", wanted)
    with pytest.raises(EngineError, match=says):
        Predictor.from_pretrained(tiny_model)


class Slow:
    """Adds one; each run waits for `go` and records its number of pictures."""

    name, device = "slow", torch.device("cpu")

    def __init__(self):
        self.runs, self.go, self.started = [], threading.Semaphore(0), threading.Semaphore(0)

    def run(self, pictures):
        self.runs.append(len(pictures))
        self.started.release()
        assert self.go.acquire(timeout=20)
        if (pictures < 0).any():
            raise ValueError("no negative pictures")
        return BackboneOutput(pictures + 1, pictures + 2)


def at_once(batching: BatchingEngine, slow: Slow, calls: list[torch.Tensor]) -> dict:
    """Results of all calls; those after the first are made while it runs."""
    given: dict = {}

    def ask(place: int) -> None:
        try:
            given[place] = batching.run(calls[place])
        except ValueError as error:
            given[place] = error

    threads = [threading.Thread(target=ask, args=(place,)) for place in range(len(calls))]
    threads[0].start()
    assert slow.started.acquire(timeout=20)
    for thread in threads[1:]:
        thread.start()
    while len(batching._waiting) < len(calls) - 1:
        pass
    slow.go.release(len(calls))
    for thread in threads:
        thread.join(20)
    return given


def test_simultaneous_calls_are_batched_and_get_their_own_results():
    slow = Slow()
    calls = [torch.full((count, 3), 10.0 * place) for place, count in enumerate((1, 1, 3, 1, 1, 8, 4))]
    given = at_once(BatchingEngine(slow), slow, calls)
    for place, call in enumerate(calls):
        assert torch.equal(given[place].features, call + 1)
        assert torch.equal(given[place].detections, call + 2)
    assert slow.runs[0] == 1 and len(slow.runs) == 3  # the first call, then 18 pictures in two batches
    assert sum(slow.runs) == 19 and max(slow.runs) <= MAX_BATCH


def test_a_failed_run_fails_only_for_the_calls_in_it():
    slow = Slow()
    batching = BatchingEngine(slow)
    given = at_once(batching, slow, [torch.zeros(1), -torch.ones(1), torch.zeros(2)])
    assert (given[0].features == 1).all()
    assert [type(given[place]) for place in (1, 2)] == [ValueError, ValueError]
    slow.go.release()
    assert (batching.run(torch.zeros(1)).features == 1).all()


def test_many_threads_get_the_results_of_one(tiny_model, cache):
    predictor = Predictor.from_pretrained(tiny_model, engine="openvino:f32")
    photos = [draw_car(label, seed) for label in range(5) for seed in range(4)]
    truth = [predictor(photo).probabilities for photo in photos]
    given: dict = {}
    threads = [
        threading.Thread(target=lambda place=place: given.update({place: predictor(photos[place]).probabilities}))
        for place in range(len(photos))
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, expected in enumerate(truth):
        np.testing.assert_allclose(given[place], expected, atol=1e-5)
