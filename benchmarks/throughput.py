"""Throughput of batch prediction, from JPEG files to a CSV.

python -m benchmarks.throughput --data data

The val pictures as stored, and some enlarged to 12 megapixels. The original systems read them one by one with PIL, at
224 px, and run torch in single precision in batches of 32.
"""

import csv
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from PIL import Image
from torch import nn

from benchmarks import common
from twincar import Predictor
from twincar.batch.results import open_results
from twincar.modeling.engines.choose import limit_threads
from twincar.modeling.inference.describe import as_dict

LARGE = (4000, 3000)


@torch.no_grad()
def original_loop(network: nn.Module, names: tuple[str, ...], files: list[str], out: Path) -> None:
    """Predict files as the original systems do."""
    with out.open("w", newline="") as table:
        writer = csv.writer(table)
        for start in range(0, len(files), common.ORIGINAL_BATCH):
            some = files[start : start + common.ORIGINAL_BATCH]
            found = network(common.original_batch([Image.open(file) for file in some])).softmax(1).max(1)
            for file, probability, label in zip(some, found.values, found.indices, strict=True):
                writer.writerow([file, names[label], f"{probability:.4f}"])


def twincar(predictor: Predictor, files: list[str], out: Path) -> None:
    """Predict files as `twincar predict` does."""
    with open_results(out) as answers:
        for file, answer in zip(files, predictor.stream(files, full_size=False), strict=True):
            answers.write(file, as_dict(answer, 5))
    out.unlink()


def main(options: common.Options) -> str:
    """Time both on pictures as stored and on large ones."""
    files = list(common.val_rows(options, options.rounds(256))["path"])
    threads = torch.get_num_threads()
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    original = common.original_network().eval()
    same = Predictor.from_pretrained(options.model, device="cpu", engine="torch:f32").network

    def with_threads(count: int, work, *arguments):
        def timed():
            torch.set_num_threads(count)
            work(*arguments)

        return timed

    limit_threads(predictor.engine)
    own = torch.get_num_threads()
    lines = []
    with TemporaryDirectory() as folder:
        large = []
        for place, file in enumerate(files[: options.rounds(32)]):
            large.append(f"{folder}/{place}.jpg")
            Image.open(file).convert("RGB").resize(LARGE, Image.Resampling.BICUBIC).save(large[-1], quality=90)
        out, names = Path(folder) / "answers.csv", predictor.class_names
        for title, some in (("as stored", files), ("12 megapixels", large)):
            variants = {
                "original, ResNet50": with_threads(
                    threads, original_loop, original, names, some, Path(folder) / "a.csv"
                ),
                "original, TwinCar's network": with_threads(
                    threads, original_loop, same, names, some, Path(folder) / "b.csv"
                ),
                f"TwinCar ({predictor.engine.name})": with_threads(own, twincar, predictor, some, out),
            }
            seconds = common.interleaved_medians(variants, rounds=3, warm_up=1)
            baseline = seconds["original, ResNet50"]
            lines += [
                [f"{title}: {name}", f"{len(some) / taken:.1f}", f"{baseline / taken:.1f}"]
                for name, taken in seconds.items()
            ]
    torch.set_num_threads(threads)
    return common.table(["photos: variant", "photos/s", "speedup"], lines) + (
        f"\n\n{len(files)} photos as stored, the first of {' by '.join(map(str, Image.open(files[0]).size))} pixels; "
        f"{len(large)} of 12 megapixels."
    )


if __name__ == "__main__":
    common.run(main)
