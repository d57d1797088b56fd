"""No code in a weights file is run: malicious pickles in place of weights, for every command that reads weights."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from twincar.cli import app
from twincar.data.table import prepare
from twincar.modeling.training.recipes import RECIPES

SUFFIXES = (".pth", ".pt", ".ckpt", ".bin", ".safetensors")


class Payload:
    """Creates a folder when it is unpickled, which shows that it was run."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def zipped(payload: Payload, path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}, "payload": payload}, path)


def legacy(payload: Payload, path: Path) -> None:
    torch.save(payload, path, _use_new_zipfile_serialization=False)


def bare(payload: Payload, path: Path) -> None:
    path.write_bytes(pickle.dumps(payload))


def twincar(*words) -> tuple[int, str]:
    done = CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "300", "TERM": "dumb"})
    return done.exit_code, done.output


@pytest.fixture
def mark(tmp_path):
    return tmp_path / "it-was-run"


@pytest.fixture(scope="module")
def data(car_folders, tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    prepare(car_folders, data, val_size=0.25, progress=False)
    return data


def test_the_payload_works(mark, tmp_path):
    for number, write in enumerate((zipped, legacy, bare)):
        path = tmp_path / f"{number}.pth"
        write(Payload(mark), path)
        if write is bare:
            pickle.loads(path.read_bytes())
        else:
            torch.load(path, weights_only=False)
        assert mark.is_dir()
        mark.rmdir()


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_as_a_model_and_as_start_weights(write, suffix, mark, data, tmp_path, car_photo):
    path = tmp_path / f"weights{suffix}"
    write(Payload(mark), path)
    for words in (
        ("predict", car_photo, "--model", path),
        ("train", "--recipe", "twincar", "--data", data, "--init", path, "--out", tmp_path / "run", "--epochs", 1),
    ):
        code, output = twincar(*words)
        assert code == 2 and "Traceback" not in output and not mark.exists(), output
        assert output.startswith("twincar: ") and len(output) < 600


@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_in_a_published_folder(write, mark, tiny_model, tmp_path, car_photo):
    for name in ("model.safetensors", "pytorch_model.bin"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
        write(Payload(mark), folder / name)
        code, output = twincar("predict", car_photo, "--model", folder)
        assert code == 2 and "Traceback" not in output and not mark.exists(), output


@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_as_a_checkpoint_to_resume_or_publish(write, mark, data, tmp_path):
    """Only that no code runs; whether an unreadable checkpoint ends the run is tested in `test_train.py`."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("last.ckpt", "best.ckpt"):
        write(Payload(mark), run / "checkpoints" / name)
    recipe = next(iter(RECIPES))
    options = ("--init", "none", "--epochs", 1, "--size", 32, "--accelerator", "cpu", "--backbone", "resnet10t")
    twincar("train", "--recipe", recipe, "--data", data, "--out", run, "--resume", *options)
    assert not mark.exists()
    code, _ = twincar("publish", run, "--data", data, "--out", tmp_path / "model")
    assert code != 0 or not (run / "recipe.json").exists()
    assert not mark.exists()
