"""Run the page in a subprocess and request predictions from it, for other benchmarks."""

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

REPO = Path(__file__).resolve().parents[1]
READY = 300  # seconds that the page may take to start


class Page:
    """A running page: its URL, its process, and the seconds until it served its first response."""

    def __init__(self, url: str, process: subprocess.Popen, seconds: float):
        self.url, self.process, self.seconds = url, process, seconds

    def resident(self) -> float:
        """Return the resident memory in MB (Linux only)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024 / 1e6

    def cpu_seconds(self) -> float:
        """Return the CPU seconds used so far (Linux only)."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def served(model: str, folder: Path, **variables: str) -> Iterator[Page]:
    """Run app.py with a model while the block runs; its uploads and its log are in `folder`."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    variables |= {"TWINCAR_MODEL": model, "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "uploads")}
    began = time.perf_counter()
    with (folder / "log.txt").open("w") as log:
        command = [sys.executable, str(REPO / "app.py")]
        process = subprocess.Popen(command, env=os.environ | variables, stdout=log, stderr=subprocess.STDOUT)
    try:
        while True:
            if process.poll() is not None or time.perf_counter() - began > READY:
                raise RuntimeError(f"The page did not start: {(folder / 'log.txt').read_text()}")
            try:
                httpx.get(url, timeout=5).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.02)
        yield Page(url, process, time.perf_counter() - began)
    finally:
        process.terminate()
        process.wait(30)


async def ask(client: httpx.AsyncClient, photo: bytes, session: str) -> dict:
    """Request one prediction as Gradio's clients do: upload the photo, call the endpoint, read the events to the end.

    Raises:
        RuntimeError: The page returned an error.
    """
    sent = await client.post("/gradio_api/upload", files={"files": ("photo.jpg", photo, "image/jpeg")})
    sent.raise_for_status()
    question = {"data": [{"path": sent.json()[0], "meta": {"_type": "gradio.FileData"}}], "session_hash": session}
    asked = await client.post("/gradio_api/call/identify", json=question)
    asked.raise_for_status()
    event = ""
    async with client.stream("GET", f"/gradio_api/call/identify/{asked.json()['event_id']}") as lines:
        async for line in lines.aiter_lines():
            if line.startswith("event:"):
                event = line.split(":", 1)[1].strip()
            elif line.startswith("data:") and event == "complete":
                return json.loads(line.split(":", 1)[1])[0]
            elif event == "error":
                raise RuntimeError(f"The page returned an error: {line}")
    raise RuntimeError("The page closed the connection without an answer.")


async def ask_api(client: httpx.AsyncClient, photo: bytes, session: str, query: str = "") -> dict:
    """Request one prediction from the REST API; arguments as for `ask`, and the query of the address.

    Raises:
        RuntimeError: The page returned an error.
    """
    answer = await client.post(f"/api/identify{query}", content=photo)
    if not answer.is_success:
        raise RuntimeError(f"The page returned an error: {answer.text}")
    return answer.json()
