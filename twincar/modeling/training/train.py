"""Training of a recipe on a prepared table, with Lightning.

    twincar train --recipe twincar --data data/ --init imagenet --out runs/twincar

`run_folder.py` lists the files of the run; `publish.py` makes a model folder of them. After a stop or a kill the same
command resumes the run after its last complete epoch, and ends with the same weights bit for bit (on a CPU).
"""

import errno
import logging
import multiprocessing
import warnings
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar, WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from twincar.config import TwinCarError
from twincar.data.table import class_names, stratified_split
from twincar.features.backgrounds import load_backgrounds
from twincar.modeling.hub import model_folder
from twincar.modeling.networks import architectures, weights
from twincar.modeling.training import checks, run_folder
from twincar.modeling.training.data_module import CarData
from twincar.modeling.training.lightning_module import CarClassifier
from twincar.modeling.training.recipes import Recipe, monitor_mode


def default_precision() -> str:
    """Lightning's name of the fastest precision on this machine that is accurate enough for training."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    info = run_folder.cpuinfo()
    return "bf16-mixed" if "avx512_bf16" in info or "amx_bf16" in info else "32-true"


def _subsample(table: pd.DataFrame, fraction: float, seed: int) -> pd.DataFrame:
    """Keep a stratified fraction of the train rows; the others get the split "unused"."""
    if fraction == 1:
        return table
    train = np.flatnonzero(table["split"] == "train")
    unused = train[stratified_split(table["label"].to_numpy()[train], 1 - fraction, seed)]
    split = table["split"].copy()
    split.iloc[unused] = "unused"
    return table.assign(split=split)


def train(
    recipe: Recipe,
    table: pd.DataFrame,
    out: Path,
    *,
    init: str = "imagenet",
    not_cars: Path | None = None,
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
    """Train a recipe on the table's train rows and validate it on the val rows after every epoch.

    Args:
        recipe: The recipe.
        table: A prepared table.
        out: Folder of the run. A run in it with the same settings is resumed after its last complete epoch; a finished
            one is left unchanged.
        init: Initial weights: "imagenet" (downloaded), "none" (random), a weights file, or the folder of a published
            model, whose head is used too if its classes are the same.
        not_cars: Folder of photos without cars, for a recipe that pastes pictures onto them.
        resume: Whether to resume; False refuses a folder that contains a run.
        seed: Random seed of the run.
        workers: Number of processes that read pictures. They import the script that calls this function, which must
            therefore do so below `if __name__ == "__main__":`.
        cache: Folder of the cached pictures; by default in `out`.
        precision: Lightning's name, such as "bf16-mixed"; by default the fastest.
        accelerator: Lightning's name, such as "cpu".
        devices: Number of devices of a host.
        nodes: Number of hosts.
        progress: Whether to show a progress bar instead of printing a line per epoch.

    Returns:
        Path of the checkpoint of the best epoch, see `SelectAtLastSize`.

    Raises:
        TwinCarError: `out` contains another run or is in use by one, the table lacks train or val pictures or a second
            class, the device or the network does not suit the recipe (see `checks.py`), the disk is full, or a worker
            process called it.
        WeightsError: The initial weights do not fit the network.
        ModelError: The model folder of the initial weights cannot be used.
        DivergedError: The loss or the logits became NaN or infinite.
        KeyboardInterrupt: The user stopped it; the message says how to resume.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # a worker process importing the script
        raise TwinCarError(
            "The worker processes of a training import the script that starts it: call `train` below "
            '`if __name__ == "__main__":`, or with `workers=0`.'
        )
    out = Path(out)
    counts = table["split"].value_counts()
    for split in ("train", "val"):
        if not counts.get(split):
            raise TwinCarError(f"The table has no {split} pictures: run `twincar prepare` with a split that has some.")
    names = class_names(table)
    table = _subsample(table, recipe.train_share, seed)
    checks.check_classes(table)
    checks.check_device(accelerator, devices, nodes, precision or default_precision())
    if recipe.paste and not not_cars:
        raise TwinCarError(
            f"The recipe {recipe.name} pastes cars onto photos without cars: give a folder of them with `--not-cars`."
        )
    backgrounds = load_backgrounds(not_cars) if recipe.paste and not_cars else []
    parent = model_folder.load(init) if Path(init).is_dir() else None
    config = run_folder.run_config(recipe, table, init, seed, len(backgrounds), parent.config if parent else None)
    with run_folder.lock_run(out):
        last = run_folder.last_checkpoint(out)
        if last and not resume:
            raise TwinCarError(f"{out} contains a run: omit `--no-resume` to resume it, or choose another `--out`.")
        if last:
            run_folder.check_same_run(out, config)

        warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 on torch 2.15
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists")  # as in every resumed run
        logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # hides its tips
        torch.manual_seed(seed)
        try:
            network = architectures.build(num_classes=len(names), **recipe.network())
        except ValueError as error:
            raise TwinCarError(str(error)) from error
        module = CarClassifier(network, recipe, len(names), seed)
        checks.check_network(module, recipe, int((table["split"] == "train").sum()))
        if parent:
            state = parent.network.state_dict()
            if parent.config["class_names"] != list(names):
                state = {key: value for key, value in state.items() if not key.startswith("fc.")}
            weights.load_state_dict(network, state, source=init, may_miss=("fc.",))
        else:
            weights.initialize(network, init, recipe.architecture, recipe.conv_rms)
        network.to(memory_format=torch.channels_last)
        data = CarData(table, recipe, Path(cache or out / "cache"), workers, seed, backgrounds)
        trainer = Trainer(
            accelerator=accelerator,
            devices=devices,
            num_nodes=nodes,
            precision=precision or default_precision(),  # type: ignore[arg-type]  # a name, checked by Lightning
            max_epochs=recipe.epochs,
            benchmark=True,  # cuDNN measures its algorithms: all batches of an epoch have one size
            logger=run_folder.EpochLogger(out / "metrics.csv", resumed=bool(last), verbose=not progress),
            callbacks=_callbacks(recipe, out, progress),
            plugins=[run_folder.AtomicCheckpointIO()],
            reload_dataloaders_every_n_epochs=1,
            num_sanity_val_steps=0,
            log_every_n_steps=1,
            enable_progress_bar=progress,
            enable_model_summary=False,
            default_root_dir=out,
        )
        # The averaged weights are copied before Lightning moves the module, and stay on the device they were copied on.
        module.to(trainer.strategy.root_device)
        if trainer.is_global_zero:
            run_folder.write_run_files(out, config, init, trainer)
        _fit(trainer, module, data, last)
    return out / "checkpoints" / "best.ckpt"


class SelectAtLastSize(Callback):
    """Select the best epoch among those with the recipe's last picture size, and stop early only in these.

    Metrics at different sizes cannot be compared: a change of the size alone may raise or lower them.
    Until then, the latest epoch counts as the best.
    """

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        """Forget the epoch before if its pictures were smaller."""
        recipe = cast(CarClassifier, module).recipe
        if trainer.current_epoch == 0 or recipe.size_at(trainer.current_epoch - 1) == recipe.sizes[-1][1]:
            return
        for checkpoint in trainer.checkpoint_callbacks:
            if isinstance(checkpoint, ModelCheckpoint) and checkpoint.monitor:
                checkpoint.best_k_models.clear()
        for stopping in trainer.early_stopping_callbacks:
            stopping.wait_count = 0
            stopping.best_score = torch.tensor(-torch.inf if stopping.mode == "max" else torch.inf)


def _callbacks(recipe: Recipe, out: Path, progress: bool) -> list[Callback]:
    """Checkpoints of the best and the last epoch, progress bar, early stopping."""
    mode = monitor_mode(recipe.monitor)
    # At the end of the training epoch, so that a resumed run starts with the next one. `last` is a callback of its own,
    # because save_last writes only when the epoch is the best so far.
    saving: dict[str, Any] = {"dirpath": out / "checkpoints", "save_on_train_epoch_end": True}
    saving["enable_version_counter"] = False
    callbacks: list[Callback] = []
    if recipe.ema_decay:  # all tensors in one operation: Lightning's EMAWeightAveraging takes them one by one
        callbacks.append(WeightAveraging(multi_avg_fn=get_ema_multi_avg_fn(recipe.ema_decay)))
    callbacks += [
        SelectAtLastSize(),
        ModelCheckpoint(filename="best", monitor=recipe.monitor, mode=mode, **saving),
        ModelCheckpoint(filename="last", **saving),
    ]
    if progress:
        callbacks.append(RichProgressBar())
    if recipe.patience is not None:
        callbacks.append(EarlyStopping(recipe.monitor, patience=recipe.patience, min_delta=recipe.min_delta, mode=mode))
    return callbacks


def _fit(trainer: Trainer, module: CarClassifier, data: CarData, last: Path | None) -> None:
    """Call `trainer.fit` and turn an interruption or a full disk into a message for the user."""
    try:
        trainer.fit(module, data, ckpt_path=last, weights_only=True)
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the first into the second
        epoch = trainer.current_epoch + 1
        raise KeyboardInterrupt(f"Stopped in epoch {epoch}: the same command resumes at its start.") from stop
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        raise TwinCarError(
            f"Writing to {trainer.default_root_dir} failed in epoch {trainer.current_epoch + 1} ({error.strerror}): "
            "all earlier files are complete. Free some space, then run the same command to resume."
        ) from error
