"""Many visitors at once, some of them rude: does the page lose anybody, and does its memory grow?

    python benchmarks/soak/page.py --model models/twincar        # 64 clients for two minutes

Serves the page in a process of its own. Of the clients a tenth sends the files of `tests/hostile.py`, a tenth hangs up
half-way through sending, or before its answer; the others send a photo and want the right car back. Who is told that
the page is busy comes again, as a visitor would; that is counted, and no loss. Prints tables (Linux); ends with exit
code 1 when an honest visitor lost an answer.
"""

import io
import json
import platform
import random
import socket
import statistics
import sys
import threading
import time
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import httpx
import typer

sys.path.insert(0, str(Path(__file__).parents[2]))  # a checkout runs it without being installed

from benchmarks.page_server import served
from tests.conftest import draw_car
from tests.helpers.hostile_files import cases

FILE = {"meta": {"_type": "gradio.FileData"}}
EVERY = 20  # seconds between two looks at the memory


class Visitors:
    """What they share: where the page is, until when they come, and what became of them."""

    def __init__(self, url: str, seconds: float):
        self.corpus = [case for case in cases() if len(case.content) < 5_000_000]
        self.url, self.until = url, time.monotonic() + seconds
        self.photos = [self._jpeg(label) for label in range(5)]
        self.expected: dict[int, str] = {}
        self.seconds: list[float] = []
        self.counts: Counter[str] = Counter()
        self.losses: list[str] = []
        self.lock = threading.Lock()

    @staticmethod
    def _jpeg(label: int) -> bytes:
        buffer = io.BytesIO()
        draw_car(label, size=(640, 480)).save(buffer, "JPEG", quality=92)
        return buffer.getvalue()

    def ask(self, client: httpx.Client, name: str, content: bytes) -> tuple[str, dict]:
        """(complete or error, what it said), after as many tries as the page is busy."""
        sent = client.post("/upload", files={"files": (name, content)})
        sent.raise_for_status()
        while True:
            event = client.post("/call/identify", json={"data": [{"path": sent.json()[0]} | FILE]})
            if event.status_code != 503:
                break
            self.count("told that the page is busy")
            time.sleep(random.uniform(0.5, 2))
        event.raise_for_status()
        lines = client.get(f"/call/identify/{event.json()['event_id']}").text.strip().splitlines()
        kind, data = lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))
        return kind, data[0] if kind == "complete" else data

    def honest(self) -> None:
        with httpx.Client(base_url=f"{self.url}/gradio_api", timeout=300) as client:
            while time.monotonic() < self.until:
                label, start = random.randrange(5), time.monotonic()
                try:
                    kind, said = self.ask(client, "car.jpg", self.photos[label])
                    name = said["top"][0]["class_name"] if kind == "complete" else str(said)
                    right = name == self.expected.setdefault(label, name) and kind == "complete"
                except Exception as error:
                    right, name = False, repr(error)
                with self.lock:
                    self.seconds.append(time.monotonic() - start)
                    self.counts["honest: answered" if right else "honest: LOST"] += 1
                    self.losses += [] if right else [name]

    def rubbish(self) -> None:
        with httpx.Client(base_url=f"{self.url}/gradio_api", timeout=300) as client:
            while time.monotonic() < self.until:
                case = random.choice(self.corpus)
                try:
                    kind, _ = self.ask(client, case.file or case.id, case.content)
                    self.count(f"rubbish: {'answered' if kind == 'complete' else 'one sentence'}")
                except Exception as error:
                    self.count(f"rubbish: {type(error).__name__}")

    def hang_up(self) -> None:
        host, port = self.url.removeprefix("http://").split(":")
        while time.monotonic() < self.until:
            try:
                if random.random() < 0.5:  # half-way through sending
                    with socket.create_connection((host, int(port)), timeout=30) as line:
                        body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
                        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n"
                        head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
                        line.sendall(head.encode() + body + self.photos[0][:5000])
                        time.sleep(random.random())
                else:  # before the answer
                    with httpx.Client(base_url=f"{self.url}/gradio_api", timeout=300) as client:
                        path = client.post("/upload", files={"files": ("a.jpg", self.photos[0])}).json()[0]
                        event = client.post("/call/identify", json={"data": [{"path": path} | FILE]})
                        if event.is_success:
                            with client.stream("GET", f"/call/identify/{event.json()['event_id']}"):
                                time.sleep(random.random() / 2)
                self.count("hung up")
            except (OSError, httpx.HTTPError) as error:
                self.count(f"hung up: {type(error).__name__}")

    def count(self, what: str) -> None:
        with self.lock:
            self.counts[what] += 1


def main(
    model: Annotated[str, typer.Option(help="A model folder or a Hub repo.")] = "models/twincar",
    clients: Annotated[int, typer.Option(min=10)] = 64,
    seconds: Annotated[int, typer.Option(min=10)] = 120,
) -> None:
    """Load the page and see what becomes of its visitors."""
    with TemporaryDirectory() as folder, served(model, Path(folder)) as running:
        visitors = Visitors(running.url, seconds)
        rude = max(clients // 10, 1)
        kinds = [visitors.rubbish] * rude + [visitors.hang_up] * rude + [visitors.honest] * (clients - 2 * rude)
        threads = [threading.Thread(target=kind, daemon=True) for kind in kinds]
        memory = [(0.0, running.resident())]
        start = time.monotonic()
        for thread in threads:
            thread.start()
        while any(thread.is_alive() for thread in threads):
            time.sleep(1)
            if time.monotonic() - start >= memory[-1][0] + EVERY:
                memory.append((time.monotonic() - start, running.resident()))
        memory.append((time.monotonic() - start, running.resident()))
        tracebacks = (Path(folder) / "log.txt").read_text().count("Traceback")
    print(f"Python {platform.python_version()}, {clients} clients, {seconds} s\n\n| what | times |\n| --- | --- |")
    for what, times in sorted(visitors.counts.items()):
        print(f"| {what} | {times:,} |")
    print(f"| tracebacks in the server's log | {tracebacks} |")
    if len(visitors.seconds) > 1:
        cuts = statistics.quantiles(visitors.seconds, n=20)
        print(f"\nAn honest visitor's answer, waiting included: p50 {cuts[9]:.1f} s, p95 {cuts[18]:.1f} s")
    print("\n| second | memory of the server |\n| --- | --- |")
    for second, size in memory:
        print(f"| {second:.0f} | {size:,.0f} MB |")
    for loss in visitors.losses[:5]:
        print(f"LOST: {loss}", file=sys.stderr)
    if visitors.losses or not visitors.seconds:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
