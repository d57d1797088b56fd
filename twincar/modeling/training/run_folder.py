"""Files in the folder of a training run.

    recipe.json, run.json   the recipe, and the initial weights, seed, number of pictures and machine
    metrics.csv             one row per epoch
    checkpoints/            last.ckpt to resume from, best.ckpt to publish
    .lock                   locked while a process trains in the folder

The files are complete at any moment: a killed run loses only the current epoch.
"""

import io
import json
import os
import platform
import shutil
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from twincar.config import TwinCarError
from twincar.files import atomic_write, locked, remove_leftovers, write_json
from twincar.modeling.training.recipes import Recipe


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes checkpoints atomically: to a temporary file in the same folder, which is then renamed.

    Lightning writes to the system's temporary folder. Where that is on another disk the last step is a copy, and a kill
    during the copy loses both the old and the new checkpoint.
    """

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options: Any = None) -> None:
        """Write a checkpoint."""
        content = io.BytesIO()  # torch's own writer crashes on a full disk
        torch.save(checkpoint, content)
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


class EpochLogger(Logger):
    """Writes `metrics.csv`: one row per epoch, continued when the run is resumed.

    Lightning's CSVLogger starts a new file on a resume and spreads an epoch over several rows.

    Args:
        path: The file.
        resumed: Whether to continue an existing file.
        verbose: Whether to print a line per epoch.
    """

    def __init__(self, path: Path, resumed: bool, verbose: bool):
        super().__init__()
        self.path, self.verbose = path, verbose
        table = pd.read_csv(path) if resumed and path.exists() else pd.DataFrame(columns=["epoch"])
        self.rows = {int(row["epoch"]): row for row in table.to_dict("records")}

    name, version = "metrics", ""

    @rank_zero_only
    def log_hyperparams(self, *args, **kwargs) -> None:
        """Do nothing: recipe.json has the hyperparameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Add values to the row of their epoch and write the file."""
        if "epoch" not in metrics:
            return
        epoch = int(metrics["epoch"])
        row = self.rows.setdefault(epoch, {})
        row.update({key: round(float(value), 6) for key, value in metrics.items()}, epoch=epoch)
        with atomic_write(self.path) as temporary:
            pd.DataFrame([self.rows[key] for key in sorted(self.rows)]).to_csv(temporary, index=False)
        if self.verbose and "train_loss" in metrics:  # logged last in an epoch
            print(
                f"epoch {epoch + 1}: {row['image_size']:.0f} px, loss {row['train_loss']:.3f}, val top-1 "
                f"{row['val_top1']:.4f}, macro F1 {row['val_f1_macro']:.4f}, {row['epoch_seconds']:.0f} s",
                flush=True,
            )


def is_first_process() -> bool:
    """Whether this is the process, of several of one run, that writes files and prints."""
    # Lightning sets the rank at import; before it has started its processes, a host's number is only in NODE_RANK.
    return not (rank_zero_only.rank or int(os.environ.get("NODE_RANK", 0)))  # type: ignore[attr-defined]


@contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Lock a run's folder against other runs, and remove incomplete files of a killed one.

    Of several processes of one run, the first one locks the folder for all.

    Raises:
        TwinCarError: Another run has locked the folder, or it cannot be created.
    """
    if not is_first_process():
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TwinCarError(f"{out} cannot be created ({error.strerror}): choose another `--out`.") from error
    with locked(out / ".lock", f"Another process is training in {out}: wait for it, or choose another `--out`."):
        for folder in (out, out / "checkpoints"):
            remove_leftovers(folder)
        yield


def last_checkpoint(out: Path) -> Path | None:
    """The checkpoint to resume from, None if there is none.

    Raises:
        TwinCarError: It is incomplete.
    """
    last = out / "checkpoints" / "last.ckpt"
    if not last.exists():
        return None
    if not zipfile.is_zipfile(last):  # torch's format, with the table of contents at the end
        raise TwinCarError(f"{last} is incomplete: delete it to start again, or restore a complete copy.")
    return last


def run_config(
    recipe: Recipe, table: pd.DataFrame, init: str, seed: int, not_cars: int = 0, parent: dict | None = None
) -> dict:
    """Everything that determines a run's weights, as stored in `recipe.json` and `run.json`.

    Args:
        recipe: The recipe.
        table: The prepared table.
        init: Initial weights, as `train` takes them.
        seed: Random seed.
        not_cars: Number of photos without cars.
        parent: Config of the model that the weights are initialized with.
    """
    pictures = {name: int(count) for name, count in table["split"].value_counts().items()}
    return {
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "init": Path(init).name,
        "seed": seed,
        "pictures": pictures,
        **({"not_cars": not_cars} if not_cars else {}),
        **({"parent": _parent(parent)} if parent else {}),
    }


def _parent(config: dict) -> dict:
    """What a run records of the model that it continues: where that one came from, and which weights it has.

    If that model continued another one itself, it has a "parent", too.
    """
    training = config.get("training", {})
    kept = {key: training[key] for key in ("init", "epochs", "hours", "hardware", "parent") if key in training}
    recipe = config.get("recipe", {}).get("name")
    return {"name": config.get("name"), "recipe": recipe, **kept, "weights_sha256": config.get("weights_sha256")}


def check_same_run(out: Path, config: dict) -> None:
    """Check that the run in a folder has this configuration, so that it can be resumed.

    Raises:
        TwinCarError: It has another one; the message names the differences.
    """
    try:
        stored = json.loads((out / "run.json").read_text()) | {"recipe": json.loads((out / "recipe.json").read_text())}
    except (OSError, ValueError) as error:
        raise TwinCarError(
            f"{out} has checkpoints, but no readable run.json and recipe.json ({error}): choose another `--out`."
        ) from error
    pairs = {key: (stored.get(key), config[key]) for key in config if key != "recipe"}
    # The summary is text for people: another wording is no other run. Fields newer than the run had their defaults.
    recipe = json.loads(json.dumps(asdict(Recipe("", "")))) | stored["recipe"]
    pairs |= {key: (recipe.get(key), value) for key, value in config["recipe"].items() if key != "summary"}
    if differing := [f"{key} {old} instead of {new}" for key, (old, new) in pairs.items() if old != new]:
        raise TwinCarError(
            f"{out} contains another run ({'; '.join(differing)}): use the same settings to resume it, or choose "
            "another `--out`."
        )


def write_run_files(out: Path, config: dict, init: str, trainer: Trainer) -> None:
    """Write `recipe.json` and `run.json`, and copy the licence of the initial weights if it is in their folder."""
    licence = Path(init) / "LICENSE" if Path(init).is_dir() else Path(init).with_name(f"LICENSE.{Path(init).stem}")
    if licence.is_file():
        shutil.copyfile(licence, out / "LICENSE")
    run = {key: value for key, value in config.items() if key != "recipe"} | {
        "hardware": _hardware(trainer),
        "precision": str(trainer.precision),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    write_json(config["recipe"], out / "recipe.json")
    write_json(run, out / "run.json")


def cpuinfo() -> str:
    """Content of /proc/cpuinfo; "" on other systems than Linux."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def processor() -> str:
    """Number of cores and name of the processor."""
    names = [line.split(":", 1)[1].strip() for line in cpuinfo().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def _hardware(trainer: Trainer) -> str:
    """Number and name of the GPUs, else of the processor's cores."""
    if torch.cuda.is_available():
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    return processor()
