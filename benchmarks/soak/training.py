"""Kill a training at random times, resume it, and compare the result with an uninterrupted training.

    python benchmarks/soak/training.py --kills 20               # synthetic pictures; minutes
    python benchmarks/soak/training.py --kills 20 --data data   # a prepared folder; hours

Runs the command `twincar train`, and again with the same arguments after each kill. Times are uniform over the duration
of the uninterrupted run, training and publishing, so they are inside epochs, between them and during checkpoints. A
run that finishes is compared with the uninterrupted one, and the next is started. Exits with 1 unless weights and
metrics are equal every time, bit for bit.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from PIL import Image

from twincar.data.table import prepare


def draw_cars(folder: Path, classes: int = 3, pictures: int = 40) -> Path:
    """Write pictures in a folder per class: noise around a brightness that depends on the class."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"car {label}").mkdir(parents=True)
        for number in range(pictures):
            noise = rng.normal(60 + 70 * label, 60, (96, 128, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / f"car {label}" / f"{label}{number:03d}.jpg")
    return folder


def result_of(out: Path) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    """Load the weights of the last and of the best epoch, and the log without its times."""
    weights = {
        f"{name}.{key}": value
        for name in ("last", "best")
        for key, value in torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"].items()
    }
    log = pd.read_csv(out / "metrics.csv").drop(columns="epoch_seconds")
    return weights, log[sorted(log.columns)]


def start_time(out: Path) -> int:
    """Return when the run was last started, in nanoseconds, 0 if never."""
    run = out / "run.json"
    return run.stat().st_mtime_ns if run.exists() else 0


def state(out: Path) -> str:
    """Describe the folder of a run that was just killed."""
    partial = [path.name for path in out.rglob(".*.tmp*")]
    log = out / "metrics.csv"
    epochs = len(pd.read_csv(log)) if log.is_file() else 0
    return f"{epochs} epochs logged" + (f", partial: {', '.join(partial)}" if partial else "")


def main() -> int:
    """Run the comparison; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--recipe", default="flagship")
    parser.add_argument("--backbone", default="lcnet_035")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--data", type=Path, help="folder that `twincar prepare` wrote; default: synthetic pictures")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        data = args.data
        if data is None:
            data = scratch / "data"
            prepare(draw_cars(scratch / "cars"), data, val_size=0.2, progress=False)

        def start(out: Path) -> subprocess.Popen:
            argv = ["train", "--recipe", args.recipe, "--backbone", args.backbone, "--init", "none", "--data", data,
                    "--out", out, "--epochs", args.epochs, "--size", args.size, "--batch-size", 8,
                    "--accelerator", "cpu", "--precision", "32-true"]  # fmt: skip
            command = [sys.executable, "-m", "twincar", *map(str, argv)]
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

        def started(out: Path) -> tuple[subprocess.Popen, float]:
            """Start a training and wait until it writes run.json; return the process and that time."""
            before = start_time(out)
            process = start(out)
            while process.poll() is None and start_time(out) <= before:
                time.sleep(0.01)
            return process, time.monotonic()

        reference, killed = scratch / "reference", scratch / "killed"
        process, since = started(reference)
        if code := process.wait():
            sys.exit(f"The training failed with exit code {code}.")
        seconds = time.monotonic() - since
        print(f"uninterrupted: {args.epochs} epochs in {seconds:.0f} s", flush=True)
        want, want_log = result_of(reference)

        kills = rounds = 0
        good = True
        while kills < args.kills or killed.exists():
            process, _ = started(killed)
            moment = rng.uniform(0, seconds) if kills < args.kills else None
            try:
                code = process.wait(moment)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                kills += 1
                print(f"kill {kills}: after {moment:.1f} s; {state(killed)}", flush=True)
                continue
            if code:
                sys.exit(f"The training failed with exit code {code}.")
            have, have_log = result_of(killed)
            same = have.keys() == want.keys() and all(torch.equal(have[key], want[key]) for key in want)
            same_log = have_log.equals(want_log)
            leftovers = [path.name for path in killed.rglob(".*.tmp*")]
            good &= same and same_log and not leftovers
            rounds += 1
            print(f"end {rounds}, after {kills} kills in all: weights {'equal' if same else 'DIFFER'}, metrics "
                  f"{'equal' if same_log else 'DIFFER'}, leftovers {leftovers or 'none'}", flush=True)  # fmt: skip
            shutil.rmtree(killed)
        return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
