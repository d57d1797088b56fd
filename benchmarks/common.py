"""Shared code of the benchmarks: options, interleaved timing, the original systems, limits of the machine."""

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from twincar.config import IMAGENET_MEAN, IMAGENET_STD
from twincar.files import atomic_write, pictures_below, write_csv
from twincar.modeling.networks import architectures
from twincar.modeling.training import run_folder

ORIGINAL_SIZE, ORIGINAL_BATCH = 224, 32  # pixels and pictures, of the original systems


@dataclass(frozen=True)
class Options:
    """Command line options of a benchmark.

    Attributes:
        model: A model folder or Hub repo.
        data: The folder that `twincar prepare` wrote.
        photos: A folder of whole photos of cars, or None.
        quick: Do about a quarter of the work.
    """

    model: str
    data: Path
    photos: Path | None
    quick: bool

    def rounds(self, count: int) -> int:
        """Return the number of rounds: `count`, or a quarter of it if `quick`."""
        return max(count // 4, 3) if self.quick else count


def run(main: Callable[[Options], str]) -> None:
    """Parse the options and print the result of `main`."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--model", default="models/twincar")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--photos", type=Path, help="folder of whole photos of cars, for the measurements on them")
    parser.add_argument("--quick", action="store_true")
    options = Options(**vars(parser.parse_args()))
    if not (options.data / "cars.csv").is_file():
        parser.error(f"{options.data} contains no cars.csv: pass the folder that `twincar prepare` wrote as --data.")
    print(machine())
    print(main(options))


def interleaved_medians(variants: dict[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, float]:
    """Time functions in turn, in each of `warm_up` + `rounds` rounds, and return the median seconds of each."""
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    for turn in range(warm_up + rounds):
        for name, work in variants.items():
            start = time.perf_counter()
            work()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(columns: list[str], rows: list[list]) -> str:
    """Format a Markdown table: the first column left-aligned, the others right-aligned."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def ms(seconds: float) -> str:
    """Format seconds as milliseconds."""
    return f"{1000 * seconds:.1f} ms"


def write_report(out: Path, title: str, benchmark: str, lines: list[str], figures: pd.DataFrame | None = None) -> None:
    """Write the Markdown file of a benchmark: its title, its command and the lines.

    With `figures`, the table that the page reads, write it to a CSV of the same name.
    """
    if figures is not None:
        write_csv(figures, out.with_suffix(".csv"))
    text = "\n".join([f"# {title}", "", f"`python -m benchmarks.{benchmark}`", "", *lines])
    with atomic_write(out) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")


def val_rows(options: Options, count: int) -> pd.DataFrame:
    """Return `count` random rows of the val split, always the same."""
    from twincar.data.table import load_table

    rows = load_table(options.data).query("split == 'val'")
    return rows.sample(min(count, len(rows)), random_state=0)


def whole_photos(options: Options, count: int) -> list[str]:
    """Return the paths of the first photos below `options.photos`, at most `count`; none without such a folder."""
    return list(map(str, pictures_below(options.photos)))[:count] if options.photos else []


# The original systems


def original_network() -> nn.Module:
    """Build the network of the original systems, in single precision and with random weights."""
    torch.manual_seed(0)
    return architectures.build("resnet50", 196, head="two_layer", dropout=0.2)


def original_batch(photos: list[Image.Image], size: int = ORIGINAL_SIZE) -> Tensor:
    """Preprocess photos as the original systems do: (N, 3, size, size)."""
    normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    read = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor(), normalize])
    return torch.stack([read(photo.convert("RGB")) for photo in photos])


# The machine


def machine() -> str:
    """Describe the machine: processor, its instructions for low precision, versions, load."""
    import openvino

    instructions = ("avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
    supported = [name for name in instructions if name in run_folder.cpuinfo().split()]
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "OpenVINO": openvino.__version__}
    return (
        f"{run_folder.processor()} ({', '.join(supported) or 'no AVX-512'}); "
        f"{torch.cuda.get_device_name() + '; ' if torch.cuda.is_available() else ''}"
        f"{platform.system()}; {', '.join(f'{name} {value}' for name, value in versions.items())}; "
        f"load average {os.getloadavg()[0]:.1f} at the start."
    )


def matmul_rate(precision: str) -> float:
    """Measure the peak operations per second: the product of two large square matrices."""
    dtypes = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "int8": torch.int8}
    a, b = (torch.randn(2048, 2048).to(dtypes[precision]) for _ in range(2))
    product = torch._int_mm if precision == "int8" else torch.mm  # torch.mm cannot accumulate int8 in int32
    return 2 * 2048**3 / min(_times(lambda: product(a, b), 10))


def copy_rate() -> float:
    """Measure the bytes per second read and written when copying 256 MB."""
    a, b = np.ones(2**25), np.empty(2**25)
    return 2 * a.nbytes / min(_times(lambda: np.copyto(b, a), 10))


def _times(work: Callable[[], object], count: int) -> list[float]:
    work()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


@torch.no_grad()
def operations(network: nn.Module, size: int) -> int:
    """Count the operations of a forward pass of one picture; a multiply-add counts as two."""
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()
