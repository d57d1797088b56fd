"""Preparing and training that are killed, stopped, out of disk space or diverging leave complete files and can resume.

Real processes are killed, forked from a server that has already imported torch.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from twincar.cli import main
from twincar.config import TwinCarError
from twincar.data import table as data_table
from twincar.data.table import load_table, prepare
from twincar.features.cache import cached_pictures
from twincar.files import locked
from twincar.modeling.training import run_folder, train
from twincar.modeling.training.lightning_module import CarClassifier, DivergedError
from twincar.modeling.training.recipes import RECIPES

WAIT = 120  # seconds, for a busy machine
OPTIONS = {"init": "none", "precision": "32-true", "workers": 0, "accelerator": "cpu", "progress": False}
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["twincar.modeling.training.train", "twincar.data.table", "twincar.cli"])


def small(name: str = "twincar", **changes):
    shape = {"architecture": "timm/lcnet_035", "sizes": ((0.0, 32), (0.5, 48)), "eval_size": 48, "batch_size": 4}
    return replace(RECIPES[name], **(shape | {"epochs": 3} | changes))


def run(recipe, data, out, **options):
    return train.train(recipe, load_table(data), out, cache=data / "cache", **OPTIONS | options)


def weights(out: Path, name: str = "last") -> dict[str, torch.Tensor]:
    return torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]


def assert_same_end(one: Path, two: Path) -> None:
    """Bit for bit: last and best weights, and the whole log except the durations."""
    for name in ("last", "best"):
        first, second = weights(one, name), weights(two, name)
        assert first.keys() == second.keys()
        assert all(torch.equal(first[key], second[key]) for key in first)
    logs = [pd.read_csv(out / "metrics.csv").drop(columns="epoch_seconds") for out in (one, two)]
    pd.testing.assert_frame_equal(*logs, check_like=True, check_exact=True)


# What the processes do: they train until they are killed --------------------------------------------------------------


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _in_the_middle_of_an_epoch(epoch: int) -> None:
    step = CarClassifier.training_step

    def training_step(self, batch, index):
        if (self.current_epoch, index) == (epoch, 2):
            _die()
        return step(self, batch, index)

    CarClassifier.training_step = training_step


def _between_epochs(epoch: int) -> None:
    start = CarClassifier.on_train_epoch_start

    def on_train_epoch_start(self):
        if self.current_epoch == epoch:
            _die()
        start(self)

    CarClassifier.on_train_epoch_start = on_train_epoch_start


def _while_a_checkpoint_is_written(after: int, name: str = "last") -> None:
    """After this number of complete ones in this process."""
    atomic_write = run_folder.atomic_write

    def half_written(path):
        if Path(path).name == f"{name}.ckpt":
            half_written.left -= 1
        if half_written.left < 0:
            Path(path).parent.mkdir(exist_ok=True)
            Path(path).with_name(f".{name}.{os.getpid()}.tmp.ckpt").write_bytes(b"half")
            _die()
        return atomic_write(path)

    half_written.left = after
    run_folder.atomic_write = half_written


def _no_room_from(epoch: int) -> None:
    """Limit files to 100 kB: as on a full disk, a write stops half-way."""
    import resource

    start = CarClassifier.on_train_epoch_start

    def on_train_epoch_start(self):
        if self.current_epoch == epoch:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
        start(self)

    CarClassifier.on_train_epoch_start = on_train_epoch_start


def _table_half_written(source, out, name: str) -> None:
    def half_written(path):
        if Path(path).name == name:
            Path(path).with_name(f".{Path(path).stem}.{os.getpid()}.tmp.csv").write_text("path,lab")
            _die()
        return atomic_write(path)

    atomic_write, data_table.atomic_write = data_table.atomic_write, half_written
    prepare(source, out, progress=False)


def _pictures_half_checked(source, out, many: int) -> None:
    read_thumbnail = data_table.read_thumbnail

    def checked(image):
        checked.left -= 1
        if not checked.left:
            _die()
        return read_thumbnail(image)

    checked.left, data_table.read_thumbnail = many, checked
    prepare(source, out, progress=False)


def _trained(prepare_end, recipe, data, out, said) -> None:
    if prepare_end:
        prepare_end()
    try:
        run(recipe, data, out)
    except TwinCarError as error:
        Path(said).write_text(str(error))
        sys.exit(2)


def _commanded(words, said) -> None:
    with open(said, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["twincar", *map(str, words)]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell starts background jobs with it ignored
    main()


def ended(target, *arguments) -> int:
    process = processes.Process(target=target, args=arguments)
    process.start()
    process.join(WAIT)
    return process.exitcode


def until(happened) -> None:
    for _ in range(WAIT * 20):
        if happened():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen")


# The tests ------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_preparing_that_was_killed_ends_the_same(car_folders, tmp_path):
    """To the byte, whenever it is killed; older files stay until the new ones are complete."""
    out = tmp_path / "killed"
    for ending in (
        (_pictures_half_checked, 12), (_table_half_written, "rejected.csv"), (_table_half_written, "duplicates.csv"),
        (_table_half_written, "cars.csv"),
    ):  # fmt: skip
        assert ended(ending[0], car_folders, out, ending[1]) == -signal.SIGKILL
        assert not (out / "cars.csv").exists()
    assert list(out.glob(".*.tmp.csv"))
    for folder in (tmp_path / "whole", out):
        prepare(car_folders, folder, progress=False)
    for name in ("cars.csv", "rejected.csv", "duplicates.csv"):
        assert (out / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not list(out.glob(".*.tmp.csv"))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["twincar", "flagship"])
def test_a_killed_run_resumes_to_the_same_end(name, data, tmp_path):
    recipe, said = small(name, epochs=4), tmp_path / "said"
    run(recipe, data, tmp_path / "whole")
    out = tmp_path / "killed"
    for moment, whole_epochs in (
        (partial(_while_a_checkpoint_is_written, 0, "best"), 0),
        (partial(_in_the_middle_of_an_epoch, 1), 1),
        (partial(_while_a_checkpoint_is_written, 1), 2),
        (partial(_between_epochs, 3), 3),
    ):
        assert ended(_trained, moment, recipe, data, out, said) == -signal.SIGKILL
        last = run_folder.last_checkpoint(out)
        assert (torch.load(last, weights_only=False)["epoch"] + 1 if last else 0) == whole_epochs
    assert ended(_trained, None, recipe, data, out, said) == 0
    assert_same_end(tmp_path / "whole", out)
    assert not list(out.rglob("*.tmp*"))
    run(recipe, data, out)  # once more: it is complete, nothing is left to do
    assert_same_end(tmp_path / "whole", out)


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(data, tmp_path):
    recipe, out, said = small(), tmp_path / "run", tmp_path / "said"
    run(recipe, data, tmp_path / "whole")
    assert ended(_trained, partial(_no_room_from, 1), recipe, data, out, said) == 2
    assert "failed in epoch 2 (File too large)" in said.read_text() and "Free some space" in said.read_text()
    assert torch.load(out / "checkpoints" / "last.ckpt", weights_only=False)["epoch"] == 0
    run(recipe, data, out)
    assert_same_end(tmp_path / "whole", out)


def test_a_half_written_picture_cache_is_deleted_by_the_next(data, tmp_path):
    """It can take a gigabyte."""
    table = load_table(data)
    cached_pictures(table, 32, tmp_path, progress=False)
    (whole,) = tmp_path.glob("[!.]*.npy")
    half = whole.with_name(f".{whole.stem}.12345.tmp.npy")
    other = tmp_path / ".pictures-64-0123456789abcdef.12345.tmp.npy"  # another process may be writing it
    whole.rename(half), other.touch()
    cached_pictures(table, 32, tmp_path, progress=False)
    assert (whole.exists(), half.exists(), other.exists()) == (True, False, True)


def test_too_little_space_for_the_pictures_is_an_error_before_they_are_read(data, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    with pytest.raises(TwinCarError, match=r"take .* GB in .*cache, where 0\.0 GB are available: free some space"):
        train.train(small(), load_table(data), tmp_path / "run", cache=tmp_path / "cache", **OPTIONS)


def test_a_loss_that_is_not_finite_ends_the_run(data, tmp_path):
    with pytest.raises(DivergedError, match=r"^The loss became (nan|inf) in epoch 1, batch \d+, at .* 1e\+30.*--seed"):
        run(small("scratch", architecture="resnet18", learning_rates=(("", 1e30),), schedule="plateau"), data, tmp_path)


@pytest.mark.parametrize("when", ["on_train_epoch_start", "on_validation_epoch_start"])
def test_the_last_good_weights_are_kept(data, tmp_path, monkeypatch, when):
    """Weights that become NaN before an epoch's first batch, and after its last."""
    hook = getattr(CarClassifier, when)

    def poisoned(self):
        hook(self)
        if self.current_epoch == 1:
            next(self.network.parameters()).data.fill_(float("nan"))

    with monkeypatch.context() as patch:
        patch.setattr(CarClassifier, when, poisoned)
        with pytest.raises(DivergedError, match=r"(epoch 2, batch 1|after epoch 2), at a learning rate of"):
            run(small(), data, tmp_path)
    for name in ("last", "best"):
        assert all(value.isfinite().all() for value in weights(tmp_path, name).values())


def test_an_unreadable_picture_is_reported_and_skipped(data, tmp_path, capfd):
    """The weights are those of a training without it."""
    table, recipe = load_table(data), small(train_share=1.0)
    bad = int(np.flatnonzero(table["split"] == "train")[3])
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(Path(table["path"][bad]).read_bytes()[:500])
    with_it = table.assign(path=table["path"].where(table.index != bad, str(broken)))
    for name, rows in (("with", with_it), ("without", table.drop(index=bad))):
        train.train(recipe, rows, tmp_path / name, cache=tmp_path / "cache", **OPTIONS)
    assert_same_end(tmp_path / "with", tmp_path / "without")
    said = capfd.readouterr().err
    assert said.count(str(broken)) == 1 and "(train): " in said


@pytest.mark.slow
def test_two_runs_into_one_folder_refuse_each_other(data, tmp_path, monkeypatch):
    recipe, out = small(epochs=500), tmp_path / "run"
    first = processes.Process(target=_trained, args=(None, recipe, data, out, tmp_path / "said"))
    first.start()
    until((out / "checkpoints" / "last.ckpt").exists)
    monkeypatch.setattr(run_folder, "locked", partial(locked, timeout=0.2))
    with pytest.raises(TwinCarError, match=r"Another process is training in .*run: wait for it, or choose"):
        run(recipe, data, out)
    assert first.is_alive()
    first.kill()
    first.join(WAIT)
    with run_folder.lock_run(out):  # the lock of a killed run is released
        pass


@pytest.mark.slow
def test_ctrl_c_is_a_clean_end(data, tmp_path):
    out, said = tmp_path / "run", tmp_path / "said"
    # A recipe without early stopping, which could end the run before the signal does.
    words = ["train", "--recipe", "flagship", "--data", data, "--out", out, "--init", "none", "--size", "32"]
    words += ["--backbone", "lcnet_035", "--accelerator", "cpu", "--workers", "0", "--epochs"]
    process = processes.Process(target=_commanded, args=([*words, "500"], said))
    process.start()
    until((out / "checkpoints" / "last.ckpt").exists)
    os.kill(process.pid, signal.SIGINT)
    process.join(WAIT)
    assert process.exitcode == 130, said.read_text()
    *log, last = said.read_text().strip().splitlines()
    assert last.startswith("Stopped in epoch ") and last.endswith("the same command resumes at its start.")
    assert all(line.startswith(("epoch ", "Reading pictures ")) for line in log)
    assert ended(_commanded, [*words, "400"], said) == 2
    assert "epochs 500 instead of 400" in " ".join(said.read_text().split())


def test_workers_do_not_change_the_end(data, tmp_path):
    for workers in (0, 2):
        run(small(), data, tmp_path / str(workers), workers=workers)
    assert_same_end(tmp_path / "0", tmp_path / "2")


def test_workers_do_not_outlive_their_training(data, tmp_path):
    command = [sys.executable, "-m", "twincar", "train", "--recipe", "flagship", "--data", data, "--init", "none"]
    command += ["--out", tmp_path / "run", "--size", "32", "--backbone", "lcnet_035", "--accelerator", "cpu"]
    command += ["--workers", "2", "--epochs", "500"]
    with subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        until((tmp_path / "run" / "checkpoints" / "last.ckpt").exists)
        process.kill()
        process.communicate(timeout=WAIT)  # its output ends with the last process that inherited it


def test_a_folder_that_cannot_be_resumed_is_one_sentence(data, tmp_path):
    run(small(epochs=1), data, tmp_path)
    with pytest.raises(
        TwinCarError, match=r"another run \(seed 42 instead of 7; optimizer .* instead of .*choose another"
    ):
        run(small(epochs=1, optimizer="sgd" if small().optimizer != "sgd" else "adam"), data, tmp_path, seed=7)
    run(small(epochs=1, summary="the same recipe in other words"), data, tmp_path)  # resumes
    with pytest.raises(TwinCarError, match="contains a run"):
        run(small(epochs=1), data, tmp_path, resume=False)
    with pytest.raises(TwinCarError, match=r"metrics\.csv cannot be created"):
        run(small(epochs=1), data, tmp_path / "metrics.csv")
    last = tmp_path / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[:-100])
    with pytest.raises(TwinCarError, match=r"last\.ckpt is incomplete: delete it"):
        run(small(epochs=1), data, tmp_path)
