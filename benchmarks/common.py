"""What the benchmarks share: options, timing in turns, the seeds' way of answering, the machine and its limits."""

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
from twincar.modeling.networks import architectures
from twincar.modeling.training import run_folder

SEED_SIZE, SEED_BATCH = 224, 32


@dataclass(frozen=True)
class Options:
    """model : a model folder or Hub repo. data : what `twincar prepare` wrote. quick : about a quarter of
    the work."""

    model: str
    data: Path
    quick: bool

    def rounds(self, count: int) -> int:
        return max(count // 4, 3) if self.quick else count


def run(main: Callable[[Options], str]) -> None:
    """Read the options, and print what `main` measures with them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="models/twincar")
    parser.add_argument("--data", type=Path, default=Path("data"))
    parser.add_argument("--quick", action="store_true")
    options = Options(**vars(parser.parse_args()))
    if not (options.data / "cars.csv").is_file():
        parser.error(f"{options.data} holds no cars.csv: name the folder that `twincar prepare` wrote with --data.")
    print(machine())
    print(main(options))


def in_turns(ways: dict[str, Callable[[], object]], rounds: int, warm_up: int = 2) -> dict[str, float]:
    """Median seconds of each way. All take a turn in every round; the first rounds do not count."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(warm_up + rounds):
        for name, work in ways.items():
            start = time.perf_counter()
            work()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


def table(columns: list[str], rows: list[list]) -> str:
    """A table in Markdown; the first column is words, the others are figures."""
    lines = [columns, ["---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def ms(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms"


def val_rows(options: Options, count: int) -> pd.DataFrame:
    """The first `count` val rows of the table, in an order of chance that is always the same."""
    from twincar.data.table import load_table

    rows = load_table(options.data).query("split == 'val'")
    return rows.sample(min(count, len(rows)), random_state=0)


# The seeds' way


def seed_network() -> nn.Module:
    """The seed systems' network, in single precision, as torch lays it out. Its weights do not matter for its time."""
    torch.manual_seed(0)
    return architectures.build("resnet50", 196, head="two_layer", dropout=0.2)


def seed_batch(photos: list[Image.Image], size: int = SEED_SIZE) -> Tensor:
    """(N, 3, size, size), as the seeds read photos."""
    normalize = transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD)
    read = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor(), normalize])
    return torch.stack([read(photo.convert("RGB")) for photo in photos])


# The machine


def machine() -> str:
    """What was measured on: processor, what it can do in half precision and bytes, versions."""
    import openvino

    kinds = ("avx512f", "avx512_bf16", "avx512_vnni", "avx_vnni", "amx_bf16", "amx_int8")
    able = [kind for kind in kinds if kind in run_folder.cpuinfo().split()]
    versions = {"Python": platform.python_version(), "torch": torch.__version__, "OpenVINO": openvino.__version__}
    return (
        f"{run_folder.processor()} ({', '.join(able) or 'no AVX-512'}); "
        f"{torch.cuda.get_device_name() + '; ' if torch.cuda.is_available() else ''}"
        f"{platform.system()}; {', '.join(f'{name} {value}' for name, value in versions.items())}; "
        f"load average {os.getloadavg()[0]:.1f} before it began."
    )


def matmul_rate(precision: str) -> float:
    """Operations a second in a large product of two square matrices: what the processor gives at best."""
    kinds = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16, "int8": torch.int8}
    a, b = (torch.randn(2048, 2048).to(kinds[precision]) for _ in range(2))
    product = torch._int_mm if precision == "int8" else torch.mm  # torch.mm knows no sums wider than their numbers
    return 2 * 2048**3 / min(_times(lambda: product(a, b), 10))


def copy_rate() -> float:
    """Bytes a second that are read and written in copying 256 MB."""
    a, b = np.ones(2**25), np.empty(2**25)
    return 2 * a.nbytes / min(_times(lambda: np.copyto(b, a), 10))


def _times(work: Callable, count: int) -> list[float]:
    work()
    seconds = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


@torch.no_grad()
def operations(network: nn.Module, size: int) -> int:
    """Operations of one forward pass of one picture, a multiply and an add counted as two."""
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, size, size))
    return counter.get_total_flops()
