"""Every benchmark in turn, into reports/benchmarks.md: python -m benchmarks --data data [--quick]"""

import importlib
import time
from datetime import date

from benchmarks import common
from twincar.files import atomic_write

ALL = ("engine_agreement", "latency", "throughput", "concurrency", "startup", "training_step", "data_loading")


def main(options: common.Options) -> str:
    began = time.monotonic()
    sections = []
    for name in ALL:
        module = importlib.import_module(f"benchmarks.{name}")
        title = module.__doc__.splitlines()[0]
        print(f"\n## {title}\n", flush=True)
        body = module.main(options)
        print(body, flush=True)
        sections.append(f"## {title}\n\n`python -m benchmarks.{name}`\n\n{body}\n")
    head = (
        "# Benchmarks\n\n"
        f"Written by `make benchmark`{' QUICK=--quick' if options.quick else ''} on {date.today()}, in "
        f"{(time.monotonic() - began) / 60:.0f} minutes. Medians over rounds in which all ways take turns, so that "
        "what else the machine does falls on each of them alike.\n\n"
    )
    with atomic_write("reports/benchmarks.md") as beside:
        beside.write_text(head + common.machine() + "\n\n" + "\n".join(sections), encoding="utf-8")
    return "\nreports/benchmarks.md is written."


if __name__ == "__main__":
    common.run(main)
