"""Shared by the tests of the page: the app in a process of its own, and a visit that fails on any error."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

from playwright.sync_api import Browser, BrowserContext, Locator, Page, expect

from twincar.config import CHECKOUT

QUIET = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
         "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream",  # a webcam
         "--disable-sync", "--no-first-run")  # fmt: skip
WAIT = 45_000  # milliseconds, enough on a busy machine
expect.set_options(timeout=WAIT)


@contextmanager
def served(folder: Path, app: Path = CHECKOUT / "app.py", **variables: str) -> Iterator[tuple[str, Path]]:
    """Run the page; yields its address and the file of its output."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    quiet = {key: value for key, value in os.environ.items() if not key.startswith(("TWINCAR_", "GRADIO_"))}
    environment = quiet | {
        "PYTHONPATH": str(CHECKOUT), "GRADIO_SERVER_PORT": str(port), "GRADIO_TEMP_DIR": str(folder / "uploads"),
        "HF_HOME": str(folder / "hub"), "OMP_NUM_THREADS": "1",
        "TWINCAR_ENGINE": "openvino:f32", "TWINCAR_CACHE": os.environ["TWINCAR_CACHE"],
    } | variables  # fmt: skip
    log = folder / "log.txt"
    url = f"http://127.0.0.1:{port}"
    with log.open("w") as out:
        process = subprocess.Popen([sys.executable, str(app)], env=environment, stdout=out, stderr=subprocess.STDOUT)
    try:
        for _ in range(960):
            assert process.poll() is None, log.read_text()
            try:
                urlopen(url, timeout=5).close()
                break
            except URLError:
                time.sleep(0.25)
        else:
            raise AssertionError(f"The page does not start: {log.read_text()}")
        yield url, log
    finally:
        process.terminate()
        process.wait(20)


@contextmanager
def visiting(browser: Browser | BrowserContext, site: tuple[str, Path], at: str = "/") -> Iterator[Page]:
    """A new visit; fails on requests to another host, errors in the console, and tracebacks of the server."""
    size: dict = {} if isinstance(browser, BrowserContext) else {"viewport": {"width": 1280, "height": 900}}
    page = browser.new_page(**size)
    foreign: list[str] = []
    errors: list[str] = []
    ours = (site[0], "data:", "blob:")
    page.on("request", lambda request: request.url.startswith(ours) or foreign.append(request.url))
    page.on("console", lambda message: message.type == "error" and errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    before = len(site[1].read_text())
    page.goto(site[0] + at)
    expect(page.get_by_role("tab").first).to_be_visible()
    expect(page.locator("#shell")).to_have_count(0)  # page.js has run
    yield page
    page.close()
    assert not foreign and not errors, (foreign, errors)
    assert "Traceback" not in site[1].read_text()[before:]


def settled(handle: Locator) -> int:
    """The position of a slider in per cent, once it stands beside the bright part of its evidence.

    Until the pictures have their size it is at 0, and Gradio moves it more than once.
    """
    before = 0
    for _ in range(WAIT // 500):
        now = int(handle.get_attribute("aria-valuenow") or 0)
        if now and now == before:
            return now
        before = now
        handle.page.wait_for_timeout(500)
    raise AssertionError("The slider does not come to rest.")
