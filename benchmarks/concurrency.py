"""How does the page bear 32 clients at once?

python -m benchmarks.concurrency --data data

One client asks for an answer with its overlay again and again; then 32 do, each its next as soon as it has the last
one, on the same cores. The client is the same program both times. What a core does for one answer, at the page and at
the client, tells how many answers a second the cores could give at most.
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
    """(seconds of each answer, errors, answers a second) of some clients for a while."""
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
    photos = [Path(path).read_bytes() for path in common.val_rows(options, 64)["path"]]
    minute = 15 if options.quick else 60
    with TemporaryDirectory() as folder, page_server.served(options.model, Path(folder)) as running:
        asyncio.run(load(running.url, photos, 1, 3))  # warm
        measured, work = {}, {}
        for clients, seconds in ((1, minute / 2), (CLIENTS, minute)):
            before = running.worked(), time.process_time()
            measured[clients] = asyncio.run(load(running.url, photos, clients, seconds))
            work[clients] = running.worked() - before[0], time.process_time() - before[1]
    alone = measured[1][2]
    rows = []
    for clients, (taken, errors, rate) in measured.items():
        p50, p95 = (f"{np.percentile(taken, at):.2f} s" if taken else "" for at in (50, 95))
        each = (common.ms(seconds / max(len(taken), 1)) for seconds in work[clients])
        rows.append([clients, len(taken), len(errors), p50, p95, f"{rate:.1f}", f"{rate / alone:.2f}", *each])
    columns = ["clients", "answers", "errors", "median", "95 %", "answers/s", "times one client's"]
    columns += ["a core's work at the page", "at the client"]
    said = {error for _, errors, _ in measured.values() for error in errors}
    return common.table(columns, rows) + "".join(f"\n\n{error}" for error in sorted(said)[:3])


if __name__ == "__main__":
    common.run(main)
