"""What a training run keeps in its folder, whole at any moment: a run that is killed loses the epoch under way.

recipe.json, run.json   what was asked for, on what machine
metrics.csv             a line an epoch
checkpoints/            last.ckpt to go on from, best.ckpt to publish
.lock                   held while a process trains into it
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

import pandas as pd
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.plugins.io import TorchCheckpointIO
from lightning.pytorch.utilities import rank_zero_only

from twincar.config import TwinCarError
from twincar.files import atomic_write, locked, remove_leftovers, write_json
from twincar.modeling.training.recipes import Recipe


class WholeCheckpoints(TorchCheckpointIO):
    """Writes a checkpoint beside its place and renames it. Lightning's own is written to the system's temporary folder:
    where that is another disk, its last step is a copy, and a kill during it loses the old checkpoint and the new."""

    def save_checkpoint(self, checkpoint: dict, path: str | Path, storage_options=None) -> None:
        content = io.BytesIO()  # torch's own writer crashes on a full disk
        torch.save(checkpoint, content)
        with atomic_write(path) as beside, beside.open("wb") as file:
            file.write(content.getbuffer())
            file.flush()
            os.fsync(file.fileno())


class EpochLog(Logger):
    """`metrics.csv`: a line an epoch, whole at any moment, continued when the run is. (Lightning's CSVLogger starts
    anew on a resume and spreads an epoch over several lines.)"""

    def __init__(self, path: Path, continued: bool, speaks: bool):
        super().__init__()
        self.path, self.speaks = path, speaks
        table = pd.read_csv(path) if continued and path.exists() else pd.DataFrame(columns=["epoch"])
        self.rows = {int(row["epoch"]): row for row in table.to_dict("records")}

    name, version = "metrics", ""

    @rank_zero_only
    def log_hyperparams(self, *args, **kwargs) -> None:
        """Nothing: recipe.json has them."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        if "epoch" not in metrics:
            return
        epoch = int(metrics["epoch"])
        row = self.rows.setdefault(epoch, {})
        row.update({key: round(float(value), 6) for key, value in metrics.items()}, epoch=epoch)
        with atomic_write(self.path) as beside:
            pd.DataFrame([self.rows[key] for key in sorted(self.rows)]).to_csv(beside, index=False)
        if self.speaks and "train_loss" in metrics:  # the last of an epoch's; where there is no progress bar to watch
            print(
                f"epoch {epoch + 1}: {row['image_size']:.0f} px, loss {row['train_loss']:.3f}, val top-1 "
                f"{row['val_top1']:.4f}, macro F1 {row['val_f1_macro']:.4f}, {row['epoch_seconds']:.0f} s",
                flush=True,
            )


@contextmanager
def lock_run(out: Path) -> Iterator[None]:
    """Keep other processes from training into `out`, and clear away what a killed one left half-written. Of the several
    processes of one run, the first holds it for all. Raises TwinCarError where another run does."""
    if rank_zero_only.rank or int(os.environ.get("NODE_RANK", 0)):
        yield
        return
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise TwinCarError(f"{out} cannot be made ({error.strerror}): name another `--out`.") from error
    with locked(out / ".lock", f"Another process trains into {out}: wait for it, or name another `--out`."):
        for folder in (out, out / "checkpoints"):
            remove_leftovers(folder)
        yield


def last_checkpoint(out: Path) -> Path | None:
    """The checkpoint to go on from, if there is one. Raises TwinCarError where it is not whole."""
    last = out / "checkpoints" / "last.ckpt"
    if not last.exists():
        return None
    if not zipfile.is_zipfile(last):  # torch's format; its table of contents comes last
        raise TwinCarError(f"{last} is not whole: remove it to begin again, or put back a copy that is.")
    return last


def facts(recipe: Recipe, table: pd.DataFrame, init: str, seed: int) -> dict:
    """What a run's weights hang on, as `recipe.json` and `run.json` tell it."""
    pictures = {name: int(count) for name, count in table["split"].value_counts().items()}
    return {
        "recipe": json.loads(json.dumps(asdict(recipe))),
        "init": Path(init).name,
        "seed": seed,
        "pictures": pictures,
    }


def check_same_run(out: Path, asked: dict) -> None:
    """Raise TwinCarError, naming what differs, where the run in `out` is not the one that is asked for: the rest of it
    would be neither the one nor the other."""
    try:
        known = json.loads((out / "run.json").read_text()) | {"recipe": json.loads((out / "recipe.json").read_text())}
    except (OSError, ValueError) as error:
        raise TwinCarError(
            f"{out} holds checkpoints, but not what they are of ({error}): name another `--out`."
        ) from error
    pairs = {key: (known.get(key), asked[key]) for key in asked if key != "recipe"}
    pairs |= {key: (known["recipe"].get(key), value) for key, value in asked["recipe"].items()}
    if differing := [f"{key} {old} instead of {new}" for key, (old, new) in pairs.items() if old != new]:
        raise TwinCarError(
            f"{out} holds another run ({'; '.join(differing)}): ask for the same to go on with it, or name another "
            "`--out`."
        )


def describe(out: Path, asked: dict, init: str, trainer: Trainer) -> None:
    """Leave what the model card will tell, and the licence that lies beside the start weights."""
    licence = Path(init).with_name(f"LICENSE.{Path(init).stem}")
    if licence.is_file():
        shutil.copyfile(licence, out / "LICENSE")
    run = {key: value for key, value in asked.items() if key != "recipe"} | {
        "hardware": _hardware(trainer),
        "precision": str(trainer.precision),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    write_json(asked["recipe"], out / "recipe.json")
    write_json(run, out / "run.json")


def cpuinfo() -> str:
    """What Linux tells of the processor; "" elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def processor() -> str:
    """How many cores of what."""
    names = [line.split(":", 1)[1].strip() for line in cpuinfo().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


def _hardware(trainer: Trainer) -> str:
    if torch.cuda.is_available():
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    return processor()
