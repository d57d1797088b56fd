"""Nothing in a weights file is run: pickles planted where weights belong, through every door that takes weights."""

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


class Plant:
    """Makes a folder when it is unpickled: that it was run can be seen."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return os.mkdir, (str(self.mark),)


def zipped(plant: Plant, path: Path) -> None:
    torch.save({"state_dict": {"fc.weight": torch.zeros(1)}, "plant": plant}, path)


def legacy(plant: Plant, path: Path) -> None:
    torch.save(plant, path, _use_new_zipfile_serialization=False)


def bare(plant: Plant, path: Path) -> None:
    path.write_bytes(pickle.dumps(plant))


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


def test_the_plant_works(mark, tmp_path):
    for number, write in enumerate((zipped, legacy, bare)):
        path = tmp_path / f"{number}.pth"
        write(Plant(mark), path)
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
    write(Plant(mark), path)
    for words in (
        ("predict", car_photo, "--model", path),
        ("train", "--recipe", "twincar", "--data", data, "--init", path, "--out", tmp_path / "run", "--epochs", 1),
    ):
        code, said = twincar(*words)
        assert code == 2 and "Traceback" not in said and not mark.exists(), said
        assert said.startswith("twincar: ") and len(said) < 600


@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_in_a_published_folder(write, mark, tiny_model, tmp_path, car_photo):
    for name in ("model.safetensors", "pytorch_model.bin"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_bytes((tiny_model / "config.json").read_bytes())
        write(Plant(mark), folder / name)
        code, said = twincar("predict", car_photo, "--model", folder)
        assert code == 2 and "Traceback" not in said and not mark.exists(), said


@pytest.mark.parametrize("write", [zipped, legacy, bare])
def test_as_a_checkpoint_to_resume_or_publish(write, mark, data, tmp_path):
    """Whether an unreadable checkpoint ends the run or is passed over is for `test_train.py` and its like to say."""
    run = tmp_path / "run"
    (run / "checkpoints").mkdir(parents=True)
    for name in ("last.ckpt", "best.ckpt"):
        write(Plant(mark), run / "checkpoints" / name)
    recipe = next(iter(RECIPES))
    options = ("--init", "none", "--epochs", 1, "--size", 32, "--accelerator", "cpu", "--backbone", "resnet10t")
    twincar("train", "--recipe", recipe, "--data", data, "--out", run, "--resume", *options)
    assert not mark.exists()
    code, _ = twincar("publish", run, "--data", data, "--out", tmp_path / "model")
    assert code != 0 or not (run / "recipe.json").exists()
    assert not mark.exists()
