"""Throughput of the training data loader, in one process.

python -m benchmarks.data_loading --data data

Train pictures, decoded, augmented by the recipe `twincar` and normalized, in batches of 32. The original systems decode
the JPEG in every epoch and augment it as a PIL image; TwinCar reads decoded pictures from one file, augments them as
uint8 and normalizes whole batches. The lower bound is copying each picture once.
"""

from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from PIL import Image
from torchvision import transforms

from benchmarks import common
from twincar.config import IMAGENET_MEAN, IMAGENET_STD
from twincar.data.table import load_table
from twincar.features.cache import cached_pictures
from twincar.features.transforms import augmentation, normalize
from twincar.modeling.training.data_module import CACHE_SIZE, PictureDataset, collate
from twincar.modeling.training.recipes import RECIPES

RECIPE = RECIPES["twincar"]
SIDE = common.ORIGINAL_SIZE
ORIGINAL = transforms.Compose(
    [
        transforms.RandomResizedCrop(SIDE, RECIPE.crop_scale, RECIPE.crop_ratio),
        transforms.RandomHorizontalFlip(),
        transforms.RandomRotation(RECIPE.rotation),
        transforms.ColorJitter(*RECIPE.jitter),
        transforms.RandomApply([transforms.GaussianBlur(5, (0.1, 1.5))], RECIPE.blur),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
)


def main(options: common.Options) -> str:
    """Time both ways of loading the same pictures."""
    table = load_table(options.data)
    table = table[table["split"] == "train"].sample(options.rounds(256), random_state=0)
    batches = [slice(at, at + common.ORIGINAL_BATCH) for at in range(0, len(table), common.ORIGINAL_BATCH)]
    threads = torch.get_num_threads()

    def original() -> None:
        for batch in batches:
            pictures = []
            for row in table.iloc[batch].itertuples():
                picture = Image.open(row.path).convert("RGB")
                if row.x1 == row.x1:
                    picture = picture.crop((row.x1, row.y1, row.x2, row.y2))
                pictures.append(ORIGINAL(picture))
            torch.stack(pictures)

    with TemporaryDirectory() as folder:
        cached, _ = cached_pictures(table, CACHE_SIZE, Path(folder), progress=False)
        rows, labels = np.arange(len(table)), table["label"].to_numpy()
        data = PictureDataset(cached, rows, labels, transform=augmentation(RECIPE, SIDE))

        def current() -> None:
            for batch in batches:
                normalize(collate([data[index] for index in range(*batch.indices(len(data)))])[0])

        torch.set_num_threads(1)  # as in a DataLoader's process
        seconds = common.interleaved_medians({"original": original, "TwinCar": current}, options.rounds(5), warm_up=1)
        torch.set_num_threads(threads)
    bound = len(table) * SIDE * SIDE * 3 * 2 / common.copy_rate()
    lines = [
        [name, f"{len(table) / taken:.0f}", f"{seconds['original'] / taken:.2f}", f"{taken / bound:,.0f}"]
        for name, taken in seconds.items()
    ]
    return common.table(["variant", "pictures/s", "speedup", "× lower bound"], lines)


if __name__ == "__main__":
    common.run(main)
