"""Lightning data module: loaders of the training and validation pictures, from the cache of `features/cache.py`."""

import mmap
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.context import BaseContext
from pathlib import Path
from threading import Thread
from typing import Any

import cv2
import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler, WeightedRandomSampler

from twincar.config import TwinCarError
from twincar.features.cache import cached_pictures
from twincar.features.transforms import augmentation, squash
from twincar.modeling.training.lightning_module import epoch_seed
from twincar.modeling.training.recipes import Recipe

CACHE_SIZE = 224  # side of the cached training pictures, in pixels; crops are taken from them


class PictureDataset(Dataset):
    """Cached pictures as (image, label) with a transform, as (image, label, row) without; (3, size, size) uint8 images.

    Args:
        pictures: (rows, side, side, 3) uint8 cache, in memory or mapped.
        rows: (N,) rows of this dataset.
        labels: (N,) their labels.
        transform: Augmentation of (3, side, side) uint8; None resizes to `size`.
        size: Side in pixels without a transform.
        seed: Random seed of the transform.
    """

    def __init__(
        self,
        pictures: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray,
        transform: Callable[[Tensor], Tensor] | None = None,
        size: int = 0,
        seed: int = 0,
    ):
        self.pictures, self.rows, self.labels = pictures, rows, labels
        self.transform, self.size, self.seed = transform, size, seed

    def __len__(self) -> int:
        return len(self.rows)

    def __getstate__(self) -> dict:
        """For worker processes: the path of a mapped cache instead of its pictures, a gigabyte."""
        state = self.__dict__.copy()
        if isinstance(self.pictures, np.memmap) and isinstance(self.pictures.base, mmap.mmap):  # the whole file
            state["pictures"] = self.pictures.filename
        return state

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        if not isinstance(self.pictures, np.ndarray):
            self.pictures = np.load(self.pictures, mmap_mode="r")

    def __getitem__(self, index: int):
        row, label = int(self.rows[index]), int(self.labels[index])
        picture = np.array(self.pictures[row])
        if self.transform is None:
            picture = squash(Image.fromarray(picture), self.size).copy()
            return torch.from_numpy(picture).permute(2, 0, 1), label, row
        with torch.random.fork_rng(devices=[]):  # depends on epoch and position only, not on the workers
            torch.manual_seed(self.seed * len(self.rows) + index)
            return self.transform(torch.from_numpy(picture).permute(2, 0, 1)), label


def collate(items: list[tuple]) -> list[Tensor]:
    """Collate a batch: (N, 3, H, W) pictures, channels_last in memory, and (N,) labels and rows."""
    pictures, *others = zip(*items, strict=True)
    batch = torch.stack([picture.permute(1, 2, 0) for picture in pictures]).permute(0, 3, 1, 2)
    return [batch, *map(torch.tensor, others)]


def _worker_context() -> BaseContext:
    """How worker processes are started: not as forks of this process.

    A fork keeps the locks that other threads (a progress bar, OpenVINO, a server) hold at that moment, and may wait for
    them forever. A fork server runs nothing but the imports of this module, once for all workers.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():  # Windows
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _start_worker(worker: int) -> None:
    """Keep OpenCV to one thread, as torch keeps itself, and end with the process that trains, even if it is killed.

    The loader's own check for that sees the fork server, which in turn lives as long as its workers.
    """
    cv2.setNumThreads(1)  # the worker processes are the parallelism
    trainer = multiprocessing.parent_process()
    assert trainer is not None

    def follow() -> None:
        trainer.join()
        os._exit(1)

    Thread(target=follow, daemon=True).start()


class _ReseededSampler(Sampler[int]):
    """A sampler with the same order in every iteration: a resumed run iterates once more than an uninterrupted one."""

    generator: torch.Generator

    def __iter__(self) -> Iterator[int]:
        self.generator.manual_seed(self.generator.initial_seed())
        return super().__iter__()


class EpochShuffle(_ReseededSampler, RandomSampler):
    """Every picture once, in random order."""


class EpochBalanced(_ReseededSampler, WeightedRandomSampler):
    """As many draws with replacement as there are pictures, each class equally often on average."""


class CarData(LightningDataModule):
    """Loaders of a table's train and val rows, created anew every epoch at the recipe's size for it.

    Args:
        table: A prepared table.
        recipe: The recipe.
        cache: Folder of the cached pictures.
        workers: Number of worker processes.
        seed: Random seed of the run.
        backgrounds: Photos without cars, for a recipe that pastes pictures onto them.
    """

    def __init__(
        self,
        table: pd.DataFrame,
        recipe: Recipe,
        cache: Path,
        workers: int,
        seed: int,
        backgrounds: Sequence[np.ndarray] = (),
    ):
        super().__init__()
        self.table, self.recipe, self.cache = table, recipe, cache
        self.workers, self.seed, self.backgrounds = workers, seed, backgrounds

    def prepare_data(self) -> None:
        """Fill the cache; Lightning calls this in one process of each host."""
        _, unreadable = cached_pictures(self.table, CACHE_SIZE, self.cache)
        for row, reason in unreadable.items():
            picture = self.table.iloc[row]
            print(f"Skipped unreadable picture {picture['path']} ({picture['split']}): {reason}", file=sys.stderr)
        if unreadable:
            print(f"To use them after repairing the files, delete {self.cache}.", file=sys.stderr)

    def setup(self, stage: str) -> None:
        """Map the cache into memory; Lightning calls this in every process."""
        self.pictures, self.unreadable = cached_pictures(self.table, CACHE_SIZE, self.cache)

    @property
    def _epoch(self) -> int:
        assert self.trainer is not None  # Lightning sets it before it creates a loader
        return self.trainer.current_epoch

    def _split(self, name: str, **options) -> PictureDataset:
        """Readable pictures of a split."""
        rows = np.setdiff1d(np.flatnonzero(self.table["split"] == name), list(self.unreadable))
        if not len(rows):
            raise TwinCarError(f"None of the {name} pictures can be read: run `twincar prepare` again.")
        return PictureDataset(self.pictures, rows, self.table["label"].to_numpy()[rows], **options)

    @property
    def _loading(self) -> dict[str, Any]:
        """What both loaders have in common."""
        return {
            "num_workers": self.workers,
            "multiprocessing_context": _worker_context() if self.workers else None,
            "worker_init_fn": _start_worker,
            "collate_fn": collate,
            "pin_memory": torch.cuda.is_available(),
        }

    def train_dataloader(self) -> DataLoader:
        """Loader of augmented training pictures for the current epoch."""
        epoch = self._epoch
        seed = epoch_seed(self.seed, epoch)
        transform = augmentation(self.recipe, self.recipe.size_at(epoch), self.backgrounds)
        data = self._split("train", transform=transform, seed=seed)
        generator = torch.Generator().manual_seed(seed)
        sampler: Sampler[int] = EpochShuffle(data, generator=generator)
        if self.recipe.balanced_sampler:
            counts = np.bincount(data.labels)
            sampler = EpochBalanced(1.0 / counts[data.labels], len(data), generator=generator)
        return DataLoader(
            data,
            self.recipe.batch_size,
            sampler=sampler,
            generator=torch.Generator().manual_seed(seed),  # otherwise the loader would use the generator of MixUp
            drop_last=len(data) >= self.recipe.batch_size,  # batch norm fails on a batch of one picture
            **self._loading,
        )

    def val_dataloader(self) -> DataLoader:
        """Loader of validation pictures, with their rows."""
        data = self._split("val", size=self.recipe.eval_size_at(self._epoch))
        return DataLoader(data, 64, **self._loading)
