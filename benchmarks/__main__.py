"""Run all speed benchmarks and write reports/benchmarks.md: python -m benchmarks --data data [--quick]"""

import importlib
import time
from datetime import date

from benchmarks import common
from twincar.files import atomic_write

ALL = ("engine_agreement", "latency", "throughput", "concurrency", "startup", "training_step", "data_loading")


def main(options: common.Options) -> str:
    """Run all benchmarks."""
    began = time.monotonic()
    sections = []
    for name in ALL:
        module = importlib.import_module(f"benchmarks.{name}")
        title = module.__doc__.splitlines()[0].rstrip(".")
        print(f"\n## {title}\n", flush=True)
        body = module.main(options)
        print(body, flush=True)
        sections.append(f"## {title}\n\n`python -m benchmarks.{name}`\n\n{body}\n")
    head = (
        "# Benchmarks\n\n"
        f"Written by `make benchmark`{' QUICK=--quick' if options.quick else ''} on {date.today()}, in "
        f"{(time.monotonic() - began) / 60:.0f} minutes. Times are medians over rounds. Every round runs all variants "
        "in turn, so that other load on the machine affects all of them equally.\n\n"
    )
    with atomic_write("reports/benchmarks.md") as temporary:
        temporary.write_text(head + common.machine() + "\n\n" + "\n".join(sections), encoding="utf-8")
    return "\nWritten to reports/benchmarks.md."


if __name__ == "__main__":
    common.run(main)
