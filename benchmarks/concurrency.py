"""Throughput of the page with 32 concurrent clients: through Gradio's queue, and through /api/identify.

python -m benchmarks.concurrency --data data

First one client, then 32 clients request predictions without pause, on the same cores as the page. The ways to ask take
turns, so that another load on the machine affects all of them; the last lines compare them within each round. CPU time
per prediction, of page and client, limits the number of predictions per second.
"""

import asyncio
import statistics
import time
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import httpx
import numpy as np

from benchmarks import common, page_server

CLIENTS = 32
GRADIO = "Gradio's queue, with overlay"
WAYS = {
    GRADIO: page_server.ask,
    "/api/identify?overlay=jpeg": partial(page_server.ask_api, query="?overlay=jpeg"),
    "/api/identify": page_server.ask_api,
}


@dataclass
class Load:
    """What clients measured while they asked without pause.

    Attributes:
        taken: Seconds of each answer.
        errors: Those of requests that failed.
        rates: Answers per second, of each round.
        page: CPU seconds of the page.
        client: CPU seconds of the clients.
    """

    taken: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    page: float = 0.0
    client: float = 0.0

    def row(self, way: str, clients: int) -> list:
        p50, p95 = (f"{np.percentile(self.taken, at):.2f} s" if self.taken else "" for at in (50, 95))
        each = (common.ms(seconds / max(len(self.taken), 1)) for seconds in (self.page, self.client))
        return [way, clients, len(self.taken), len(self.errors), p50, p95, f"{np.mean(self.rates):.1f}", *each]


async def ask_all(way: str, load: Load, url: str, photos: list[bytes], clients: int, seconds: float) -> None:
    """Run clients for some seconds, and add to `load` what they measured."""
    began, answered = time.perf_counter(), len(load.taken)

    async def one(place: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            turn = place
            while time.perf_counter() - began < seconds:
                start = time.perf_counter()
                try:
                    await WAYS[way](client, photos[turn % len(photos)], f"client{place}")
                    load.taken.append(time.perf_counter() - start)
                except (httpx.HTTPError, RuntimeError) as error:
                    load.errors.append(repr(error))
                turn += 1

    await asyncio.gather(*(one(place) for place in range(clients)))
    load.rates.append((len(load.taken) - answered) / (time.perf_counter() - began))


def main(options: common.Options) -> str:
    """Measure one client and 32 clients, in each way, in turn."""
    photos = [Path(path).read_bytes() for path in common.val_rows(options, 64)["path"]]
    rounds, seconds = (3, 5) if options.quick else (6, 10)
    loads = {(way, clients): Load() for clients in (1, CLIENTS) for way in WAYS}
    with TemporaryDirectory() as folder, page_server.served(options.model, Path(folder)) as running:
        for way in WAYS:
            asyncio.run(ask_all(way, Load(), running.url, photos, 1, 1))  # warm-up
        for turn in range(rounds):
            for way, clients in list(loads)[:: -1 if turn % 2 else 1]:
                load, before = loads[way, clients], (running.cpu_seconds(), time.process_time())
                duration = seconds if clients > 1 else seconds / 2
                asyncio.run(ask_all(way, load, running.url, photos, clients, duration))
                load.page += running.cpu_seconds() - before[0]
                load.client += time.process_time() - before[1]
    columns = ["asked through", "clients", "answers", "errors", "median", "95 %", "answers/s"]
    columns += ["CPU time per answer, page", "client"]
    text = common.table(columns, [load.row(*key) for key, load in loads.items()])
    for way in list(WAYS)[1:]:
        pairs = zip(loads[way, CLIENTS].rates, loads[GRADIO, CLIENTS].rates, strict=True)
        ratios = sorted(rate / gradio for rate, gradio in pairs)
        text += (
            f"\n\n{CLIENTS} clients through `{way}`: {statistics.median(ratios):.2f} times the answers per second of "
            f"{GRADIO} ({ratios[0]:.2f} to {ratios[-1]:.2f} in {rounds} rounds)."
        )
    messages = {error for load in loads.values() for error in load.errors}
    return text + "".join(f"\n\n{error}" for error in sorted(messages)[:3])


if __name__ == "__main__":
    common.run(main)
