"""Load test of the page with well-behaved and misbehaving clients: lost requests and memory growth.

    python benchmarks/soak/page.py --model models/twincar        # 64 clients for two minutes

Runs the page in a subprocess. A tenth of the clients sends the files of `tests/helpers/hostile_files.py`, a tenth
disconnects during the upload or before the answer; the others send a photo and check the answer. A client that gets the
status 503 (busy) tries again; that is counted, but is no failure. Prints tables (Linux only); exits with 1 if a request
of a well-behaved client failed.
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

sys.path.insert(0, str(Path(__file__).parents[2]))  # run from a checkout without installation

from benchmarks.page_server import served
from tests.conftest import draw_car
from tests.helpers.hostile_files import cases

FILE = {"meta": {"_type": "gradio.FileData"}}
EVERY = 20  # seconds between two measurements of the memory


class Clients:
    """All clients of the page: their photos, their deadline and their results."""

    def __init__(self, url: str, seconds: float):
        self.corpus = [case for case in cases() if len(case.content) < 5_000_000]
        self.url, self.until = url, time.monotonic() + seconds
        self.photos = [self._jpeg(label) for label in range(5)]
        self.expected: dict[int, str] = {}
        self.seconds: list[float] = []
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []
        self.lock = threading.Lock()

    @staticmethod
    def _jpeg(label: int) -> bytes:
        buffer = io.BytesIO()
        draw_car(label, size=(640, 480)).save(buffer, "JPEG", quality=92)
        return buffer.getvalue()

    def ask(self, client: httpx.Client, name: str, content: bytes) -> tuple[str, dict]:
        """Request one prediction, again while the page is busy; return ("complete" or "error", answer or message)."""
        sent = client.post("/upload", files={"files": (name, content)})
        sent.raise_for_status()
        while True:
            event = client.post("/call/identify", json={"data": [{"path": sent.json()[0]} | FILE]})
            if event.status_code != 503:
                break
            self.count("busy (503)")
            time.sleep(random.uniform(0.5, 2))
        event.raise_for_status()
        lines = client.get(f"/call/identify/{event.json()['event_id']}").text.strip().splitlines()
        kind, data = lines[-2].removeprefix("event: "), json.loads(lines[-1].removeprefix("data: "))
        return kind, data[0] if kind == "complete" else data

    def well_behaved(self) -> None:
        """Request predictions until the deadline and check the answers."""
        with httpx.Client(base_url=f"{self.url}/gradio_api", timeout=300) as client:
            while time.monotonic() < self.until:
                label, start = random.randrange(5), time.monotonic()
                try:
                    kind, answer = self.ask(client, "car.jpg", self.photos[label])
                    name = answer["top"][0]["class_name"] if kind == "complete" else str(answer)
                    right = name == self.expected.setdefault(label, name) and kind == "complete"
                except Exception as error:
                    right, name = False, repr(error)
                with self.lock:
                    self.seconds.append(time.monotonic() - start)
                    self.counts["well-behaved: answered" if right else "well-behaved: FAILED"] += 1
                    self.failures += [] if right else [name]

    def hostile(self) -> None:
        """Upload hostile files until the deadline."""
        with httpx.Client(base_url=f"{self.url}/gradio_api", timeout=300) as client:
            while time.monotonic() < self.until:
                case = random.choice(self.corpus)
                try:
                    kind, _ = self.ask(client, case.file or case.id, case.content)
                    self.count(f"hostile: {'answered' if kind == 'complete' else 'error message'}")
                except Exception as error:
                    self.count(f"hostile: {type(error).__name__}")

    def disconnecting(self) -> None:
        """Disconnect during the upload or before the answer, until the deadline."""
        host, port = self.url.removeprefix("http://").split(":")
        while time.monotonic() < self.until:
            try:
                if random.random() < 0.5:  # during the upload
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
                self.count("disconnected")
            except (OSError, httpx.HTTPError) as error:
                self.count(f"disconnected: {type(error).__name__}")

    def count(self, what: str) -> None:
        """Count an event."""
        with self.lock:
            self.counts[what] += 1


def main(
    model: Annotated[str, typer.Option(help="Model folder or Hub repo.")] = "models/twincar",
    clients: Annotated[int, typer.Option(min=10, help="Number of clients.")] = 64,
    seconds: Annotated[int, typer.Option(min=10, help="Duration.")] = 120,
) -> None:
    """Put load on the page and report results and memory."""
    with TemporaryDirectory() as folder, served(model, Path(folder)) as running:
        load = Clients(running.url, seconds)
        some = max(clients // 10, 1)
        kinds = [load.hostile] * some + [load.disconnecting] * some + [load.well_behaved] * (clients - 2 * some)
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
    print(f"Python {platform.python_version()}, {clients} clients, {seconds} s\n\n| result | count |\n| --- | --- |")
    for what, times in sorted(load.counts.items()):
        print(f"| {what} | {times:,} |")
    print(f"| tracebacks in the server's log | {tracebacks} |")
    if len(load.seconds) > 1:
        cuts = statistics.quantiles(load.seconds, n=20)
        print(f"\nResponse time of well-behaved clients, with waiting: p50 {cuts[9]:.1f} s, p95 {cuts[18]:.1f} s")
    print("\n| second | memory of the server |\n| --- | --- |")
    for second, size in memory:
        print(f"| {second:.0f} | {size:,.0f} MB |")
    for failure in load.failures[:5]:
        print(f"FAILED: {failure}", file=sys.stderr)
    if load.failures or not load.seconds:
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
