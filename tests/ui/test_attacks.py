"""The page under attack: files of the server, server-side request forgery, floods, secrets.

Two pages are served: one as it is, and one with limits so low that a test reaches them.
"""

import base64
import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import pytest
from gradio_client import Client, handle_file
from playwright.sync_api import expect

from tests.conftest import draw_car, put
from tests.helpers.visit import served
from twincar.config import CHECKOUT
from twincar.ui.uploads import delete_old

TOKEN = "hf_canaryTokenThatMustNotLeak"
SECRET = "only the server may read this"
ROUTES = (
    "/gradio_api/file=", "/file=", "/gradio_api/file/", "/file/", "/gradio_api/proxy=", "/static/", "/assets/",
    "/svelte/", "/gradio_api/custom_component/1/client/component/",
)  # fmt: skip
META = {"meta": {"_type": "gradio.FileData"}}

TIGHT = """
import ipaddress, os, time
from pathlib import Path
import safehttpx
from gradio import processing_utils
from twincar import Predictor
from twincar.ui import page

page.MAX_QUEUE, page.ZIP_BYTES, page.CLEAN_EVERY, page.DELETE_AFTER = 1, 1_000_000, 1, 4
gate, answer, public = Path(os.environ["GATE"]), Predictor.__call__, safehttpx.is_public_ip

def slowly(self, photo, **how):
    while gate.exists():
        time.sleep(0.05)
    return answer(self, photo, **how)

Predictor.__call__ = slowly
# 127.0.0.2 plays a host on the internet, since a test has none.
safehttpx.is_public_ip = lambda ip: ip == "127.0.0.2" or public(ip)

import app
app.main()
"""


class Canary(BaseHTTPRequestHandler):
    """Records requests; on 127.0.0.2 it redirects to 127.0.0.1."""

    def do_GET(self):
        self.server.asked.append(self.path)
        if self.path.startswith("/to-loopback"):
            self.send_response(302)
            self.send_header("Location", f"http://127.0.0.1:{self.server.inner}/secret.png")
            self.end_headers()
        else:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(SECRET.encode())

    def log_message(self, *args):
        pass


@pytest.fixture
def canary() -> Iterator[tuple[ThreadingHTTPServer, ThreadingHTTPServer]]:
    """(the server on loopback, which must not be reached; the one on the "internet", which redirects to it)."""
    servers = [ThreadingHTTPServer((host, 0), Canary) for host in ("127.0.0.1", "127.0.0.2")]
    for server in servers:
        server.asked, server.inner = [], servers[0].server_port
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield tuple(servers)
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def site(tiny_model, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("site")
    (folder / "hub").mkdir()
    (folder / "hub" / "token").write_text(TOKEN)
    (folder / ".env").write_text(SECRET)
    with served(folder, TWINCAR_MODEL=str(tiny_model), HF_TOKEN=TOKEN) as running:
        yield running
        assert TOKEN not in running[1].read_text()


@pytest.fixture(scope="module")
def tight(tiny_model, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    folder = tmp_path_factory.mktemp("tight")
    (folder / "tight.py").write_text(TIGHT)
    with served(folder, folder / "tight.py", TWINCAR_MODEL=str(tiny_model), GATE=str(folder / "gate")) as running:
        yield running


def get(url: str, path: str) -> tuple[int, str]:
    """A request with the path unchanged: HTTP clients normalize it."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    connection.putrequest("GET", path, skip_accept_encoding=True)
    connection.endheaders()
    response = connection.getresponse()
    return response.status, response.read(100_000).decode("utf-8", "replace")


def ask(url: str, name: str, photo) -> str:
    """The raw response of the API for `photo`."""
    with httpx.Client(base_url=f"{url}/gradio_api", timeout=60) as client:
        event = client.post(f"/call/{name}", json={"data": [photo]})
        return client.get(f"/call/{name}/{event.json()['event_id']}").text if event.is_success else event.text


def send(url: str, content: bytes, name: str = "car.jpg") -> httpx.Response:
    return httpx.post(f"{url}/gradio_api/upload", files={"files": (name, content)}, timeout=60)


# Files of the server


def test_no_route_serves_a_file_that_the_page_did_not_write(site, tiny_model):
    url, log = site
    folder = log.parent
    [mine] = send(url, draw_car(0).tobytes()).json()
    inside = str(Path(mine).parent)
    assert get(url, f"/gradio_api/file={mine}")[0] == 200  # a visitor's own
    up = "../" * 12
    targets = [
        "/etc/passwd", "/proc/self/environ", str(CHECKOUT / "app.py"), str(CHECKOUT / "twincar" / "photo.py"),
        str(tiny_model / "config.json"), str(folder / ".env"), str(folder / "hub" / "token"), str(log),
    ]  # fmt: skip
    tried = 0
    for target in targets:
        slashed, relative = target.replace("/", "%2f"), os.path.relpath(target)
        for path in (
            target, "/" + target, slashed, slashed.replace("%", "%25"), relative, f"{inside}/{up}{target[1:]}",
            f"{inside}/{up.replace('.', '%2e')}{target[1:]}", f"{inside}/{up.replace('/', '%5c')}{target[1:]}",
            f"file://{target}", f"file:{target}", f"{mine}%00{target}", f"{target}%00.png", f"{target}?x=.png",
            f"~{target}",
        ):  # fmt: skip
            for route in ROUTES:
                status, text = get(url, route + path)
                leaked = (SECRET, TOKEN, "root:x:0", '"architecture"', "import gradio", "HF_TOKEN", "Running on")
                assert status >= 400 or not any(word in text for word in leaked), route + path
                tried += 1
    assert tried > 900


@pytest.mark.parametrize("name", ["identify", "many"])
def test_no_path_makes_the_api_read_a_file_of_the_server(site, tiny_model, name):
    """With and without the mark that makes Gradio check it; also through a link in the folder of uploads."""
    url, log = site
    folder = log.parent
    draw_car(1).save(folder / "secret.png")
    [mine] = send(url, b"mine").json()
    link = Path(mine).with_name("link.png")
    link.unlink(missing_ok=True)
    link.symlink_to(folder / "secret.png")
    paths = [
        folder / "secret.png", f"{Path(mine).parent}/../../secret.png", link, "/etc/passwd", "/dev/zero", "", ".", "\0",
        "x" * 5000, "~/.bashrc", f"file://{folder}/secret.png", Path(mine).parent, Path(mine).with_name("gone.png"), 7,
        None, ["/etc/passwd"], {"path": "/etc/passwd"},
    ]  # fmt: skip
    for path in paths:
        path = str(path) if isinstance(path, Path) else path
        for meta in ({}, META):
            photo = {"path": path} | meta
            answer = ask(url, name, [photo] if name == "many" else photo)
            assert "class_name" not in answer and str(folder) not in answer.replace(json.dumps(path)[1:-1], ""), answer
    for odd in (None, 7, "/etc/passwd", [], {}, {"url": "http://127.0.0.1/"}, [[]], {"path": mine, "orig_name": {}}):
        assert "class_name" not in ask(url, name, odd)
    [photo] = send(url, (CHECKOUT / "docs" / "page.png").read_bytes()).json()
    good = {"path": photo} | META
    assert "class_name" in ask(url, name, [good] if name == "many" else good)


@pytest.mark.parametrize("name", ["identify", "many"])
def test_what_is_no_photo_is_refused_in_one_sentence(site, name):
    """Also what Gradio itself refuses, with `{"error": null}` and a traceback."""
    url, log = site
    before = len(log.read_text())
    paths = ["/etc/passwd", "car.jpg", "\0", "x" * 5000, 7, None, "http://nowhere.invalid/x.png"]
    odd = [{"path": path} | META for path in paths] + [{"path": "x", "meta": 7}, {"meta": {"_type": "?"}}, META]
    odd += [7, "", "car.jpg", "/etc/passwd", "data:", "data:image/jpeg;base64,%", "data:,x", [], {}, [[]], None]
    odd += ["data:image/jpeg;base64," + base64.b64encode(b"no picture at all\n" * 20).decode()]
    for photo in odd:
        for sent in (photo, [photo]):
            answer = ask(url, name, sent)
            error = re.search(r'"error": "([A-Z][^"]+[.:][^"]*\.)"', answer)
            assert error or (name == "many" and '{"rows": [],' in answer), (sent, answer)
    answer = httpx.post(f"{url}/gradio_api/call/{name}", json={"data": []}).json()
    assert "No photo was received" in httpx.get(f"{url}/gradio_api/call/{name}/{answer['event_id']}").text
    assert "Traceback" not in log.read_text()[before:]


@pytest.mark.parametrize("name", ["identify", "many"])
def test_a_data_url_is_a_photo(site, car_photo, name):
    data_url = "data:image/jpeg;base64," + base64.b64encode(car_photo.read_bytes()).decode()
    assert "class_name" in ask(site[0], name, [data_url] if name == "many" else data_url)
    assert "25 MB" in ask(site[0], name, "data:image/jpeg;base64," + "A" * 36_000_000)


# Server-side request forgery


def test_the_server_sends_no_request_to_the_internal_network(site, canary):
    url = site[0]
    port = canary[0].server_port
    hosts = ["127.0.0.1", "localhost", "127.1", "2130706433", "0x7f000001", "0.0.0.0", "[::1]", "[::ffff:127.0.0.1]",
             "user@127.0.0.1", "127.0.0.1.", "LOCALHOST"]  # fmt: skip
    addresses = [f"http://{host}:{port}/secret.png" for host in hosts]
    addresses += [f"ftp://127.0.0.1:{port}/", f"//127.0.0.1:{port}/secret.png", f"http:127.0.0.1:{port}/"]
    addresses += [
        "http://169.254.169.254/latest/meta-data/",
        "http://[fe80::1]/",
        "http://10.0.0.1:1/",
        "file:///etc/passwd",
    ]
    for address in addresses:
        status, text = get(url, f"/gradio_api/file={address}")
        assert status >= 400 or SECRET not in text
        assert SECRET not in get(url, f"/gradio_api/proxy={address}")[1]
        answer = ask(url, "identify", {"path": address} | META)
        assert "class_name" not in answer and SECRET not in answer, (address, answer)
    address = addresses[0]
    for photo in ({"path": address}, {"path": "x", "url": address} | META, {"url": address}):
        assert "class_name" not in ask(url, "identify", photo)
        assert "class_name" not in ask(url, "many", [photo])
    assert canary[0].asked == []


@pytest.mark.slow
def test_a_redirect_to_the_internal_network_is_not_followed(tight, canary):
    loopback, internet = canary
    address = f"http://127.0.0.2:{internet.server_port}/to-loopback.png"
    assert "class_name" not in ask(tight[0], "identify", {"path": address} | META)
    assert SECRET not in get(tight[0], f"/gradio_api/file={address}")[1]
    assert len(internet.asked) == 2 and loopback.asked == []


# Floods


@pytest.mark.slow
def test_a_full_queue_refuses_requests_and_loses_none(browser, tight, car_photo):
    url, log = tight
    gate = log.parent / "gate"
    page = browser.new_page()  # not `visiting`: the refusal is an error in the console
    page.goto(url)
    [path] = send(url, car_photo.read_bytes()).json()
    question = {"data": [{"path": path} | META]}
    gate.touch()
    with httpx.Client(base_url=f"{url}/gradio_api", timeout=60) as client:
        try:
            accepted = []
            for _ in range(40):  # four are being answered, one waits
                event = client.post("/call/identify", json=question)
                if event.is_success:
                    accepted.append(event.json()["event_id"])
                    time.sleep(0.1)
                elif len(accepted) >= 3:
                    break
            assert event.status_code == 503 and "Queue is full" in event.json()["detail"]
            page.set_input_files("#photo input[type=file]", car_photo)
            expect(page.locator("#headline .trouble")).to_contain_text("too busy")
        finally:
            gate.unlink()
        for event in accepted:
            assert "class_name" in client.get(f"/call/identify/{event}").text
    page.set_input_files("#photo input[type=file]", car_photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    page.close()


@pytest.mark.slow
def test_a_file_that_is_too_large_is_refused_with_a_message(browser, tight, tmp_path, car_photo):
    url, log = tight
    large = tmp_path / "large.jpg"
    large.write_bytes(car_photo.read_bytes() + bytes(1_100_000))
    refused = send(url, large.read_bytes())
    assert refused.status_code == 413 and "maximum allowed size" in refused.text
    assert not any(path.stat().st_size > 1_000_000 for path in (log.parent / "uploads").rglob("*"))
    page = browser.new_page()
    page.goto(url)
    page.set_input_files("#photo input[type=file]", large)
    expect(page.get_by_test_id("toast-body")).to_contain_text("maximum allowed size")
    page.set_input_files("#photo input[type=file]", car_photo)
    expect(page.locator("#headline .answer")).to_be_visible()
    page.close()


@pytest.mark.slow
def test_uploads_are_deleted_after_a_while(tight, car_photo):
    before_log = len(tight[1].read_text())  # Gradio prints a traceback for each path that it refuses in other tests
    Client(tight[0], verbose=False).predict(photo=handle_file(car_photo), api_name="/identify")
    [path] = send(tight[0], car_photo.read_bytes(), "mine.jpg").json()
    uploads = tight[1].parent / "uploads"
    before = uploads / ("0" * 64) / "before.jpg"  # left by a killed server
    before.parent.mkdir(exist_ok=True)
    before.write_bytes(b"old")
    host, port = tight[0].removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as line:  # disconnects during the upload
        body = b'--b\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\nhalf a photo'
        head = f"POST /gradio_api/upload HTTP/1.1\r\nHost: {host}\r\nContent-Length: 100000\r\n"
        line.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n".encode() + body)
        time.sleep(1)
    assert Path(path).is_file() and path.startswith(str(uploads))
    for _ in range(100):
        left = [file for file in uploads.rglob("*") if file.is_file()]
        if not left:
            break
        time.sleep(0.3)
    assert not left
    assert "Traceback" not in tight[1].read_text()[before_log:]


def test_examples_and_files_of_others_are_not_deleted(tmp_path):
    for name in (
        "f" * 64 + "/photo.jpg",
        "e" * 64 + "/example.jpg",
        "tmpabcdefgh",
        "notes.txt",
        "data/x.jpg",
        "f" * 63,
    ):
        put(tmp_path / name)
    keep = {str(tmp_path / ("e" * 64) / "example.jpg")}
    delete_old(tmp_path, 3600, keep)
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 6
    delete_old(tmp_path, -1, keep)
    left = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"e" * 64 + "/example.jpg", "notes.txt", "data/x.jpg", "f" * 63}


# Secrets


def test_neither_pages_nor_errors_contain_the_token(site):
    for path in ("/", "/config", "/gradio_api/info", "/gradio_api/openapi.json", "/monitoring", "/gradio_api/nowhere"):
        assert TOKEN not in get(site[0], path)[1]
    refused = ask(site[0], "identify", {"path": "http://nowhere.invalid/x.png"} | META)
    assert TOKEN not in refused


def test_the_error_of_a_hub_that_refuses_the_token_does_not_contain_it(hub, monkeypatch, capfd):
    import app

    monkeypatch.setenv("HF_TOKEN", TOKEN)
    (hub.root / "someone").mkdir()
    with pytest.raises(ValueError) as refusal:
        app.load("someone/gated", shipped=Path("nowhere"))
    assert TOKEN not in str(refusal.value) + "".join(capfd.readouterr())
