"""The LightningDataModule: loaders of training and validation pictures, from the cache of `features/cache.py`."""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from lightning.pytorch import LightningDataModule
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler, WeightedRandomSampler

from twincar.config import TwinCarError
from twincar.features.cache import cached_pictures
from twincar.features.transforms import augmentation, squash
from twincar.modeling.training.lightning_module import epoch_seed
from twincar.modeling.training.recipes import Recipe

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


def stack(items: list[tuple]) -> list[Tensor]:
    """What the loader makes of a batch: (N, 3, H, W) pictures, channels_last as they come, and the numbers beside."""
    pictures, *others = zip(*items, strict=True)
    side_by_side = torch.stack([picture.permute(1, 2, 0) for picture in pictures]).permute(0, 3, 1, 2)
    return [side_by_side, *map(torch.tensor, others)]


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

    def prepare_data(self) -> None:  # on one process a host, before the others map it
        _, unreadable = cached_pictures(self.table, CACHE_SIZE, self.cache)
        for row, reason in unreadable.items():
            picture = self.table.iloc[row]
            print(f"Left out, it cannot be read: {picture['path']} ({picture['split']}): {reason}", file=sys.stderr)
        if unreadable:
            print(f"Once they are mended, remove {self.cache} to have them read again.", file=sys.stderr)

    def setup(self, stage: str) -> None:
        self.pictures, self.unreadable = cached_pictures(self.table, CACHE_SIZE, self.cache)

    def _split(self, name: str, **options) -> Pictures:
        rows = np.setdiff1d(np.flatnonzero(self.table["split"] == name), list(self.unreadable))
        if not len(rows):
            raise TwinCarError(f"None of the {name} pictures can be read: prepare the data again.")
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
            collate_fn=stack,
            pin_memory=torch.cuda.is_available(),
            drop_last=len(data) >= self.recipe.batch_size,  # a last batch of one picture would upset batch norm
        )

    def val_dataloader(self) -> DataLoader:
        data = self._split("val", size=self.recipe.eval_size_at(self.trainer.current_epoch))
        return DataLoader(data, 64, num_workers=self.workers, collate_fn=stack, pin_memory=torch.cuda.is_available())
