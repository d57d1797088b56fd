"""Throughput of the page with 32 concurrent clients.

python -m benchmarks.concurrency --data data

First one client, then 32 clients request predictions with overlays without pause, on the same cores as the page. The
CPU time per prediction, of page and client, limits the number of predictions per second.
"""

import asyncio
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from benchmarks import common, page_server

CLIENTS = 32


async def load(url: str, photos: list[bytes], clients: int, seconds: float) -> tuple[list[float], list[str], float]:
    """Run clients for some seconds; return the seconds of each answer, the errors and the answers per second."""
    taken: list[float] = []
    errors: list[str] = []
    began = time.perf_counter()

    async def one(place: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            turn = place
            while time.perf_counter() - began < seconds:
                start = time.perf_counter()
                try:
                    await page_server.ask(client, photos[turn % len(photos)], f"client{place}")
                    taken.append(time.perf_counter() - start)
                except (httpx.HTTPError, RuntimeError) as error:
                    errors.append(repr(error))
                turn += 1

    await asyncio.gather(*(one(place) for place in range(clients)))
    return taken, errors, len(taken) / (time.perf_counter() - began)


def main(options: common.Options) -> str:
    """Measure one client and 32 clients."""
    photos = [Path(path).read_bytes() for path in common.val_rows(options, 64)["path"]]
    minute = 15 if options.quick else 60
    with TemporaryDirectory() as folder, page_server.served(options.model, Path(folder)) as running:
        asyncio.run(load(running.url, photos, 1, 3))  # warm-up
        measured, work = {}, {}
        for clients, seconds in ((1, minute / 2), (CLIENTS, minute)):
            before = running.cpu_seconds(), time.process_time()
            measured[clients] = asyncio.run(load(running.url, photos, clients, seconds))
            work[clients] = running.cpu_seconds() - before[0], time.process_time() - before[1]
    single = measured[1][2]
    rows = []
    for clients, (taken, errors, rate) in measured.items():
        p50, p95 = (f"{np.percentile(taken, at):.2f} s" if taken else "" for at in (50, 95))
        each = (common.ms(seconds / max(len(taken), 1)) for seconds in work[clients])
        rows.append([clients, len(taken), len(errors), p50, p95, f"{rate:.1f}", f"{rate / single:.2f}", *each])
    columns = ["clients", "answers", "errors", "median", "95 %", "answers/s", "× one client"]
    columns += ["CPU time per answer, page", "client"]
    messages = {error for _, errors, _ in measured.values() for error in errors}
    return common.table(columns, rows) + "".join(f"\n\n{error}" for error in sorted(messages)[:3])


if __name__ == "__main__":
    common.run(main)
