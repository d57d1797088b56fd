"""Runs a recipe on a table; resumes; ends in a folder that publishes.

    twincar train --recipe twincar --data data/ --init imagenet --out runs/twincar

The folder then holds `recipe.json`, `run.json`, `metrics.csv` (a line an epoch) and `checkpoints/` (last and best).
`publish.py` makes a model folder of it.
"""

import logging
import os
import platform
import shutil
import warnings
from dataclasses import asdict
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, RichProgressBar
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities import rank_zero_only
from PIL import Image
from torch.utils.data import DataLoader, Dataset, RandomSampler, WeightedRandomSampler

from twincar.config import TwinCarError
from twincar.dataset import class_names, stratified_split
from twincar.features import augmentation, cached_pictures, squash
from twincar.files import write_beside, write_json
from twincar.modeling import architectures, weights
from twincar.modeling.recipes import Recipe
from twincar.modeling.task import CarTask, epoch_seed

CACHE_SIZE = 224  # side of the cached training pictures; crops are taken from these


class Pictures(Dataset):
    """Rows of a picture cache as (image (3, size, size) uint8, label[, row])."""

    def __init__(self, pictures: np.ndarray, rows: np.ndarray, labels: np.ndarray, transform=None, size=0, seed=0):
        self.pictures, self.rows, self.labels = pictures, rows, labels
        self.transform, self.size, self.seed = transform, size, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int):
        row, label = int(self.rows[index]), int(self.labels[index])
        picture = np.array(self.pictures[row])
        if self.transform is None:
            picture = squash(Image.fromarray(picture), self.size).copy()
            return torch.from_numpy(picture).permute(2, 0, 1), label, row
        with torch.random.fork_rng(devices=[]):  # what happens to a picture hangs on epoch and place, not on workers
            torch.manual_seed(self.seed * len(self.rows) + index)
            return self.transform(torch.from_numpy(picture).permute(2, 0, 1)), label


class _Reseeding:
    """A sampler that gives the same order however often it is asked: Lightning asks once more in a resumed run."""

    def __iter__(self):
        self.generator.manual_seed(self.generator.initial_seed())
        return super().__iter__()


class EpochShuffle(_Reseeding, RandomSampler):
    """Every picture once, in an order of chance."""


class EpochBalanced(_Reseeding, WeightedRandomSampler):
    """As many draws as pictures, with replacement, each class equally often on average."""


class CarData(LightningDataModule):
    """Loaders of a table's train and val rows, rebuilt every epoch at the sizes that the recipe has for it."""

    def __init__(self, table: pd.DataFrame, recipe: Recipe, cache: Path, workers: int, seed: int):
        super().__init__()
        self.table, self.recipe, self.cache = table, recipe, cache
        self.workers, self.seed = workers, seed

    def prepare_data(self) -> None:
        cached_pictures(self.table, CACHE_SIZE, self.cache)  # on one process a host, before the others map it

    def setup(self, stage: str) -> None:
        self.pictures = cached_pictures(self.table, CACHE_SIZE, self.cache)

    def _split(self, name: str, **options) -> Pictures:
        rows = np.flatnonzero(self.table["split"] == name)
        return Pictures(self.pictures, rows, self.table["label"].to_numpy()[rows], **options)

    def train_dataloader(self) -> DataLoader:
        epoch = self.trainer.current_epoch
        seed = epoch_seed(self.seed, epoch)
        transform = augmentation(self.recipe, self.recipe.size_at(epoch))
        data = self._split("train", transform=transform, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        sampler = EpochShuffle(data, generator=generator)
        if self.recipe.balanced_sampler:
            counts = np.bincount(data.labels)
            sampler = EpochBalanced(1.0 / counts[data.labels], len(data), generator=generator)
        return DataLoader(
            data,
            self.recipe.batch_size,
            sampler=sampler,
            generator=torch.Generator().manual_seed(seed),  # else the loader draws from the one that MixUp draws from
            num_workers=self.workers,
            pin_memory=torch.cuda.is_available(),
            drop_last=len(data) >= self.recipe.batch_size,  # a last batch of one picture would upset batch norm
        )

    def val_dataloader(self) -> DataLoader:
        data = self._split("val", size=self.recipe.eval_size_at(self.trainer.current_epoch))
        return DataLoader(data, 64, num_workers=self.workers, pin_memory=torch.cuda.is_available())


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
        with write_beside(self.path) as beside:
            pd.DataFrame([self.rows[key] for key in sorted(self.rows)]).to_csv(beside, index=False)
        if self.speaks and "train_loss" in metrics:  # the last of an epoch's; where there is no progress bar to watch
            print(
                f"epoch {epoch + 1}: {row['image_size']:.0f} px, loss {row['train_loss']:.3f}, val top-1 "
                f"{row['val_top1']:.4f}, macro F1 {row['val_f1_macro']:.4f}, {row['epoch_seconds']:.0f} s",
                flush=True,
            )


def default_precision() -> str:
    """Lightning's name of the precision that this machine trains fast in, with the same result."""
    if torch.cuda.is_available():
        return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
    info = _cpuinfo()
    return "bf16-mixed" if "avx512_bf16" in info or "amx_bf16" in info else "32-true"


def _cpuinfo() -> str:
    """What Linux tells of the processor; "" elsewhere."""
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def _describe(out: Path, recipe: Recipe, table: pd.DataFrame, init: str, seed: int, trainer: Trainer) -> None:
    """Leave in the run's folder what its model card will tell, and the licence that lies beside the start weights."""
    if not trainer.is_global_zero:
        return
    licence = Path(init).with_name(f"LICENSE.{Path(init).stem}")
    if licence.is_file():
        shutil.copyfile(licence, out / "LICENSE")
    run = {
        "init": Path(init).name,
        "seed": seed,
        "pictures": {name: int(count) for name, count in table["split"].value_counts().items()},
        "hardware": _hardware(trainer),
        "precision": str(trainer.precision),
        "torch": torch.__version__,
        "date": date.today().isoformat(),
    }
    write_json(asdict(recipe), out / "recipe.json")
    write_json(run, out / "run.json")


def _hardware(trainer: Trainer) -> str:
    if torch.cuda.is_available():
        return f"{trainer.world_size} x {torch.cuda.get_device_name()}"
    names = [line.split(":", 1)[1].strip() for line in _cpuinfo().splitlines() if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {names[0] if names else platform.processor() or platform.machine()}"


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
    resume: bool = False,
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

    Raises TwinCarError when `out` already holds a run and `resume` is not set, or when the table has no train or no val
    pictures, and WeightsError for start weights that do not fit.
    """
    out = Path(out)
    last = out / "checkpoints" / "last.ckpt"
    if last.exists() and not resume:
        raise TwinCarError(f"{out} already holds a run: go on with `--resume`, or name another `--out`.")
    counts = table["split"].value_counts()
    for split in ("train", "val"):
        if not counts.get(split):
            raise TwinCarError(f"The table has no {split} pictures: prepare it again with a split that has some.")
    names = class_names(table)
    table = _learnt_from(table, recipe.train_share, seed)
    out.mkdir(parents=True, exist_ok=True)

    warnings.filterwarnings("ignore", ".*LeafSpec.*")  # Lightning 2.6 on torch 2.15
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)  # it greets, and advertises
    torch.manual_seed(seed)
    try:
        network = architectures.build(num_classes=len(names), **recipe.network())
    except ValueError as error:
        raise TwinCarError(str(error)) from error
    weights.initialise(network, init, recipe.architecture)
    network = network.to(memory_format=torch.channels_last)
    task = CarTask(network, recipe, len(names), seed)
    data = CarData(table, recipe, Path(cache or out / "cache"), workers, seed)

    mode = "min" if recipe.monitor.endswith("loss") else "max"
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
    trainer = Trainer(
        accelerator=accelerator,
        devices=devices,
        num_nodes=nodes,
        precision=precision or default_precision(),
        max_epochs=recipe.epochs,
        logger=EpochLog(out / "metrics.csv", last.exists(), speaks=not progress),
        callbacks=callbacks,
        reload_dataloaders_every_n_epochs=1,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        enable_progress_bar=progress,
        enable_model_summary=False,
        default_root_dir=out,
    )
    _describe(out, recipe, table, init, seed, trainer)
    trainer.fit(task, data, ckpt_path=last if last.exists() else None, weights_only=True)
    return out / "checkpoints" / "best.ckpt"
