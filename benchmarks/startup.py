"""Startup time and memory use of the page.

python -m benchmarks.startup --data data

Time from `python app.py` to the first page and to the first answer, without and with the cache of compiled models. Then
the resident memory over 200 answers.
"""

import asyncio
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import httpx

from benchmarks import common, page_server

ANSWERS = 200


def main(options: common.Options) -> str:
    """Start the page several times, then request answers."""
    photos = [Path(path).read_bytes() for path in common.val_rows(options, 32)["path"]]

    async def asked(url: str, count: int) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=60) as client:
            for turn in range(count):
                await page_server.ask(client, photos[turn % len(photos)], f"session{turn}")

    starts: dict[str, list[tuple[float, float]]] = {"without cache": [], "with cache": []}
    resident: dict[int, float] = {}
    with TemporaryDirectory() as folder:
        for turn in range(options.rounds(4) + 1):
            with page_server.served(options.model, Path(folder), TWINCAR_CACHE=f"{folder}/cache") as running:
                start = time.perf_counter()
                asyncio.run(asked(running.url, 1))
                first = running.seconds + time.perf_counter() - start
                starts["with cache" if turn else "without cache"].append((running.seconds, first))
                if turn == options.rounds(4):
                    resident[1] = running.resident()
                    for count in range(ANSWERS // 4, ANSWERS + 1, ANSWERS // 4):
                        asyncio.run(asked(running.url, ANSWERS // 4))
                        resident[count] = running.resident()
    rows = [
        [name, len(times), *(f"{median(column):.1f} s" for column in zip(*times, strict=True))]
        for name, times in starts.items()
    ]
    memory = common.table(
        ["after answers", *map(str, resident)], [["resident memory", *(f"{mb:.0f} MB" for mb in resident.values())]]
    )
    return f"{common.table(['start', 'runs', 'first page', 'first answer'], rows)}\n\n{memory}"


if __name__ == "__main__":
    common.run(main)
