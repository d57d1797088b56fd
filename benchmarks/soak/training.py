"""Kills a training at random moments, again and again, and compares its end with that of one left in peace.

    python benchmarks/soak/training.py --kills 20               # pictures drawn for it; minutes
    python benchmarks/soak/training.py --kills 20 --data data   # a prepared folder; hours

The command is the README's, started anew after each kill with the same words. Moments are drawn evenly over the time in
which the undisturbed run trained and published, so they fall into epochs, between them, into checkpoints and behind.
When a run comes to its end in spite of it, that is compared with the undisturbed one's, and the next run is begun. Ends
with 1 unless weights and metrics are the same each time, bit for bit.
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
    """Folders by class of noise about a colour of the class: something to learn, of no worth."""
    rng = np.random.default_rng(0)
    for label in range(classes):
        (folder / f"car {label}").mkdir(parents=True)
        for number in range(pictures):
            noise = rng.normal(60 + 70 * label, 60, (96, 128, 3)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noise).save(folder / f"car {label}" / f"{label}{number:03d}.jpg")
    return folder


def end_of(out: Path) -> tuple[dict[str, torch.Tensor], pd.DataFrame]:
    """Weights of the last and the best epoch, and the log without its seconds."""
    weights = {
        f"{name}.{key}": value
        for name in ("last", "best")
        for key, value in torch.load(out / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"].items()
    }
    log = pd.read_csv(out / "metrics.csv").drop(columns="epoch_seconds")
    return weights, log[sorted(log.columns)]


def noted(out: Path) -> int:
    """When the run last began, in nanoseconds."""
    run = out / "run.json"
    return run.stat().st_mtime_ns if run.exists() else 0


def state(out: Path) -> str:
    """What lies in the folder of a run that was just killed."""
    half = [path.name for path in out.rglob(".*.tmp*")]
    log = out / "metrics.csv"
    epochs = len(pd.read_csv(log)) if log.is_file() else 0
    return f"{epochs} epochs logged" + (f", half-written: {', '.join(half)}" if half else "")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--recipe", default="flagship")
    parser.add_argument("--backbone", default="lcnet_035")
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--data", type=Path, help="a folder that `twincar prepare` wrote; without it cars are drawn")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    args = parser.parse_args()
    rng = random.Random(args.seed)
    with TemporaryDirectory() as scratch:
        scratch = Path(scratch)
        data = args.data
        if data is None:
            data = scratch / "data"
            prepare(draw_cars(scratch / "cars"), data, val_size=0.2, progress=False)

        def start(out: Path) -> subprocess.Popen:
            words = ["train", "--recipe", args.recipe, "--backbone", args.backbone, "--init", "none", "--data", data,
                     "--out", out, "--epochs", args.epochs, "--size", args.size, "--batch-size", 8,
                     "--accelerator", "cpu", "--precision", "32-true"]  # fmt: skip
            command = [sys.executable, "-m", "twincar", *map(str, words)]
            return subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)

        def begun(out: Path) -> tuple[subprocess.Popen, float]:
            """A training once it has imported all and begins, which it notes in run.json, and when that was."""
            before = noted(out)
            process = start(out)
            while process.poll() is None and noted(out) <= before:
                time.sleep(0.01)
            return process, time.monotonic()

        peace, killed = scratch / "peace", scratch / "killed"
        process, since = begun(peace)
        if code := process.wait():
            sys.exit(f"The training ended with {code}, and nobody had killed it.")
        seconds = time.monotonic() - since
        print(f"undisturbed: {args.epochs} epochs in {seconds:.0f} s", flush=True)
        want, want_log = end_of(peace)

        kills = rounds = 0
        good = True
        while kills < args.kills or killed.exists():
            process, _ = begun(killed)
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
                sys.exit(f"The training ended with {code}, and nobody had killed it.")
            have, have_log = end_of(killed)
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
