"""How many photos a second, from JPEG files to the rows of a CSV?

python -m benchmarks.throughput --data data

The val pictures as they lie on disk, and a few of 12 megapixels made from them. The seeds read one after the other with
PIL, at 224 px, and asked torch in single precision in batches of 32.
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
def seeds_way(network: nn.Module, names: tuple[str, ...], files: list[str], out: Path) -> None:
    with out.open("w", newline="") as table:
        writer = csv.writer(table)
        for start in range(0, len(files), common.SEED_BATCH):
            some = files[start : start + common.SEED_BATCH]
            found = network(common.seed_batch([Image.open(file) for file in some])).softmax(1).max(1)
            for file, probability, label in zip(some, found.values, found.indices, strict=True):
                writer.writerow([file, names[label], f"{probability:.4f}"])


def ours(predictor: Predictor, files: list[str], out: Path) -> None:
    with open_results(out) as answers:
        for file, answer in zip(files, predictor.stream(files, full_size=False), strict=True):
            answers.write(file, as_dict(answer, 5))
    out.unlink()


def main(options: common.Options) -> str:
    files = list(common.val_rows(options, options.rounds(256))["path"])
    threads = torch.get_num_threads()
    predictor = Predictor.from_pretrained(options.model, device="cpu")
    seed = common.seed_network().eval()
    same = Predictor.from_pretrained(options.model, device="cpu", engine="torch:f32").network

    def with_threads(count: int, work, *words):
        def timed():
            torch.set_num_threads(count)
            work(*words)

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
        for title, some in (("as they are", files), ("12 megapixels", large)):
            ways = {
                "the seeds' loop, ResNet50": with_threads(
                    threads, seeds_way, seed, names, some, Path(folder) / "a.csv"
                ),
                "the seeds' loop, this network": with_threads(
                    threads, seeds_way, same, names, some, Path(folder) / "b.csv"
                ),
                f"TwinCar ({predictor.engine.name})": with_threads(own, ours, predictor, some, out),
            }
            seconds = common.in_turns(ways, rounds=3, warm_up=1)
            slowest = seconds["the seeds' loop, ResNet50"]
            lines += [
                [f"{title}: {name}", f"{len(some) / taken:.1f}", f"{slowest / taken:.1f}"]
                for name, taken in seconds.items()
            ]
    torch.set_num_threads(threads)
    return common.table(["photos, and way", "photos/s", "times the seeds'"], lines) + (
        f"\n\n{len(files)} photos as they are, the first of {' by '.join(map(str, Image.open(files[0]).size))} pixels; "
        f"{len(large)} of 12 megapixels."
    )


if __name__ == "__main__":
    common.run(main)
