"""Runs a recipe on a table; resumes; ends in a folder that publishes.

    twincar train --recipe twincar --data data/ --init imagenet --out runs/twincar

`run_folder.py` tells what the folder then holds; `publish.py` makes a model folder of it. A run that was stopped,
killed even, goes on with the same command after its last whole epoch, to the same weights bit for bit (on a CPU).
"""

import errno
import logging
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.utilities import rank_zero_only

from twincar.config import TwinCarError
from twincar.data.table import class_names, stratified_split
from twincar.modeling.networks import architectures, weights
from twincar.modeling.training import run_folder
from twincar.modeling.training.data_module import CarData
from twincar.modeling.training.lightning_module import CarClassifier
from twincar.modeling.training.recipes import Recipe, best_is


def default_precision() -> str:
    """Lightning's name of the precision that this machine trains fast in, with the same result."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    info = run_folder.cpuinfo()
    return "bf16-mixed" if "avx512_bf16" in info or "amx_bf16" in info else "32-true"


def _learnt_from(table: pd.DataFrame, share: float, seed: int) -> pd.DataFrame:
    """The table with its train rows thinned out to `share`, stratified; what is left out is the split "unused"."""
    if share == 1:
        return table
    train = np.flatnonzero(table["split"] == "train")
    unused = train[stratified_split(table["label"].to_numpy()[train], 1 - share, seed)]
    split = table["split"].copy()
    split.iloc[unused] = "unused"
    return table.assign(split=split)


def is_first_process() -> bool:
    """True in the one process of several that writes and speaks."""
    return rank_zero_only.rank == 0


def train(
    recipe: Recipe,
    table: pd.DataFrame,
    out: Path,
    *,
    init: str = "imagenet",
    resume: bool = True,
    seed: int = 42,
    workers: int = 1,
    cache: Path | None = None,
    precision: str | None = None,
    accelerator: str = "auto",
    devices: int | str = "auto",
    nodes: int = 1,
    progress: bool = True,
) -> Path:
    """Train `recipe` on the table's train rows, judge it on its val rows every epoch, return the best checkpoint.

    A run that `out` holds already goes on after its last whole epoch, if it is the same that is asked for; one that is
    whole is left as it is. `resume` False refuses both.

    Raises TwinCarError when `out` holds another run, or another process trains into it; when the table has no train or
    no val pictures; when there is no room to write; when the loss is no number any more (DivergedError); WeightsError
    for start weights that do not fit; KeyboardInterrupt, with what to tell about it, when the person stops it.
    """
    out = Path(out)
    counts = table["split"].value_counts()
    for split in ("train", "val"):
        if not counts.get(split):
            raise TwinCarError(f"The table has no {split} pictures: prepare it again with a split that has some.")
    names = class_names(table)
    table = _learnt_from(table, recipe.train_share, seed)
    asked = run_folder.facts(recipe, table, init, seed)
    with run_folder.lock_run(out):
        last = run_folder.last_checkpoint(out)
        if last and not resume:
            raise TwinCarError(f"{out} already holds a run: leave out `--no-resume` to go on, or name another `--out`.")
        if last:
            run_folder.check_same_run(out, asked)

        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 on torch 2.15
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists")  # that is what going on is
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it greets, and advertises
        torch.manual_seed(seed)
        try:
            network = architectures.build(num_classes=len(names), **recipe.network())
        except ValueError as error:
            raise TwinCarError(str(error)) from error
        weights.initialize(network, init, recipe.architecture, recipe.conv_rms)
        network = network.to(memory_format=torch.channels_last)
        task = CarClassifier(network, recipe, len(names), seed)
        data = CarData(table, recipe, Path(cache or out / "cache"), workers, seed)
        trainer = Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=precision or default_precision(),
            max_epochs=recipe.epochs,
            logger=run_folder.EpochLog(out / "metrics.csv", bool(last), speaks=not progress),
            callbacks=_callbacks(recipe, out, progress),
            plugins=[run_folder.WholeCheckpoints()],
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            enable_progress_bar=progress,
            enable_model_summary=False,
            default_root_dir=out,
        )
        if trainer.is_global_zero:
            run_folder.describe(out, asked, init, trainer)
        _fit(trainer, task, data, last)
    return out / "checkpoints" / "best.ckpt"


def _callbacks(recipe: Recipe, out: Path, progress: bool) -> list[Callback]:
    mode = best_is(recipe.monitor)
    # When the epoch is whole, so that a resumed run starts with the next one. `last` is a callback of its own: the
    # other's save_last would write only where the epoch was the best so far.
    saving = {"dirpath": out / "checkpoints", "save_on_train_epoch_end": True, "enable_version_counter": False}
    callbacks: list[Callback] = [
        ModelCheckpoint(filename="best", monitor=recipe.monitor, mode=mode, **saving),
        ModelCheckpoint(filename="last", **saving),
    ]
    if progress:
        callbacks.append(RichProgressBar())
    if recipe.patience is not None:
        callbacks.append(EarlyStopping(recipe.monitor, patience=recipe.patience, min_delta=recipe.min_delta, mode=mode))
    return callbacks


def _fit(trainer: Trainer, task: CarClassifier, data: CarData, last: Path | None) -> None:
    """`trainer.fit`, whose end before its time is told in a sentence."""
    try:
        trainer.fit(task, data, ckpt_path=last, weights_only=True)
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning makes the second of the first
        epoch = trainer.current_epoch + 1
        raise KeyboardInterrupt(f"Stopped in epoch {epoch}: the same command goes on with its start.") from stop
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TwinCarError(
            f"Writing to {trainer.default_root_dir} failed in epoch {trainer.current_epoch + 1} ({error.strerror}): "
            "what was written before is whole. Make room, and the same command goes on."
        ) from error
