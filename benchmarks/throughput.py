"""Throughput of batch prediction, from JPEG files to a CSV.

python -m benchmarks.throughput --data data [--photos whole_photos]

The val pictures as stored, and some enlarged to 12 megapixels; and whole photos, of which the cars are read in a second
pass. The original systems read photos one by one with PIL, at 224 px, and run torch in single precision in batches of
32. They find no cars: for two passes they are given the boxes.
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
from twincar.modeling.detection.boxes import Pixels, to_fractions, to_pixels, with_margin
from twincar.modeling.engines.choose import limit_threads
from twincar.modeling.inference.describe import as_dict

LARGE = (4000, 3000)


@torch.no_grad()
def original_loop(
    network: nn.Module, names: tuple[str, ...], files: list[str], out: Path, boxes: dict[str, Pixels] | None = None
) -> None:
    """Predict files as the original systems do; those with a box in a second pass over it."""
    with out.open("w", newline="") as table:
        writer = csv.writer(table)
        for start in range(0, len(files), common.ORIGINAL_BATCH):
            some = files[start : start + common.ORIGINAL_BATCH]
            photos = [Image.open(file) for file in some]
            found = network(common.original_batch(photos)).softmax(1).max(1)
            if boxes:
                cars = [photo.crop(boxes[file]) for file, photo in zip(some, photos, strict=True)]
                found = network(common.original_batch(cars)).softmax(1).max(1)
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
        whole = common.whole_photos(options, options.rounds(64))
        found = {
            file: (answer.box, answer.photo.size) for file, answer in zip(whole, predictor.stream(whole), strict=True)
        }
        boxes = {
            file: to_pixels(with_margin(to_fractions(box, size)), size) if box else (0, 0, *size)
            for file, (box, size) in found.items()
        }
        groups = (("as stored", files), ("12 megapixels", large), ("whole photos, two passes", whole))
        for title, some in [group for group in groups if group[1]]:
            second = boxes if some is whole else None
            variants = {
                "original, ResNet50": with_threads(
                    threads, original_loop, original, names, some, Path(folder) / "a.csv", second
                ),
                "original, TwinCar's network": with_threads(
                    threads, original_loop, same, names, some, Path(folder) / "b.csv", second
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
        f"{len(large)} of 12 megapixels"
        + (
            f"; {len(whole)} whole ones, with {sum(box is not None for box, _ in found.values())} cars found."
            if whole
            else "."
        )
    )


if __name__ == "__main__":
    common.run(main)
