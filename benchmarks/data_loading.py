"""How many pictures a second does the loader give, in one process?

python -m benchmarks.data_loading --data data

Train pictures, decoded, augmented as the recipe `twincar` says and normalised, in batches of 32. The seeds decoded the
JPEG in every epoch and augmented it as a PIL picture; here it lies decoded in one file, is augmented in bytes and
normalised a batch at a time. The floor is copying each picture once.
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
from twincar.modeling.training.data_module import CACHE_SIZE, Pictures, stack
from twincar.modeling.training.recipes import RECIPES

RECIPE = RECIPES["twincar"]
SIDE = common.SEED_SIZE
SEED = transforms.Compose(
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
    table = load_table(options.data)
    table = table[table["split"] == "train"].sample(options.rounds(256), random_state=0)
    batches = [slice(at, at + common.SEED_BATCH) for at in range(0, len(table), common.SEED_BATCH)]
    threads = torch.get_num_threads()

    def seeds_way() -> None:
        for batch in batches:
            pictures = []
            for row in table.iloc[batch].itertuples():
                picture = Image.open(row.path).convert("RGB")
                if row.x1 == row.x1:
                    picture = picture.crop((row.x1, row.y1, row.x2, row.y2))
                pictures.append(SEED(picture))
            torch.stack(pictures)

    with TemporaryDirectory() as folder:
        cached, _ = cached_pictures(table, CACHE_SIZE, Path(folder), progress=False)
        rows, labels = np.arange(len(table)), table["label"].to_numpy()
        data = Pictures(cached, rows, labels, transform=augmentation(RECIPE, SIDE))

        def ours() -> None:
            for batch in batches:
                normalize(stack([data[index] for index in range(*batch.indices(len(data)))])[0])

        torch.set_num_threads(1)  # as in a DataLoader's process
        seconds = common.in_turns({"the seeds' way": seeds_way, "TwinCar": ours}, options.rounds(5), warm_up=1)
        torch.set_num_threads(threads)
    floor = len(table) * SIDE * SIDE * 3 * 2 / common.copy_rate()
    slowest = seconds["the seeds' way"]
    lines = [
        [name, f"{len(table) / taken:.0f}", f"{slowest / taken:.2f}", f"{taken / floor:,.0f}"]
        for name, taken in seconds.items()
    ]
    return common.table(["way", "pictures/s", "times the seeds'", "floors"], lines)


if __name__ == "__main__":
    common.run(main)
