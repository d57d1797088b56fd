"""The REST API: through the page's own server, and in this process."""

import asyncio
import base64
import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor

import httpx
import jsonschema
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import draw_car
from tests.helpers import hostile_files
from tests.helpers.fake_predictor import fake_predictor
from twincar import Predictor
from twincar.batch.archive import PHOTO_BYTES
from twincar.config import CHECKOUT
from twincar.modeling.inference.describe import STATES, as_dict
from twincar.ui import api, api_schema
from twincar.ui.headers import headers

BOXES = (0.1, 0.1, 0.5, 0.5), (0.6, 0.6, 0.9, 0.9)
URL = "http://api"


@pytest.fixture(scope="module")
def predictor():
    return fake_predictor(*BOXES)


def encoded(kind="JPEG", size=(320, 240)) -> bytes:
    buffer = io.BytesIO()
    draw_car(0, size=size).save(buffer, kind)
    return buffer.getvalue()


PHOTO = encoded()
VAST = encoded("BMP")[:18] + (2**15).to_bytes(4, "little") * 2 + encoded("BMP")[26:]  # by its header


def ask(predictor, *requests: dict, places: int = 64) -> list[httpx.Response]:
    """Send all requests at once."""

    async def send():
        transport = httpx.ASGITransport(api.build(predictor, places), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url=URL, timeout=60) as client:
            return await asyncio.gather(*(client.request(**({"method": "POST"} | each)) for each in requests))

    with ThreadPoolExecutor(1) as thread:  # the browser of the tests above occupies the event loop of this one
        return thread.submit(asyncio.run, send()).result()


def form(**files) -> dict:
    return {"url": "/identify", "files": files}


# Through the page


def test_curls_one_request_gives_the_answer_of_the_command_line(site, tiny_model, car_photo):
    from twincar.cli import app

    url, log = site
    sent = httpx.post(f"{url}/api/identify?top=3", files={"photo": ("photo.jpg", car_photo.read_bytes())})
    printed = CliRunner().invoke(app, ["predict", str(car_photo), "--json", "--top", "3", "--model", str(tiny_model)])
    answer, expected = sent.json(), json.loads(printed.stdout)
    assert expected.pop("file") == str(car_photo)
    assert answer.keys() == expected.keys()
    assert [guess["class_name"] for guess in answer["top"]] == [guess["class_name"] for guess in expected["top"]]
    assert answer["top"][0]["probability"] == pytest.approx(expected["top"][0]["probability"], abs=1e-3)
    assert answer["model"] == expected["model"]
    assert {name: sent.headers.get(name) for name in headers()} == headers()
    model = httpx.get(f"{url}/api/model").json()
    assert {"name": model["name"], "version": model["version"]} == answer["model"]
    assert len(model["classes"]) == 5 and model["twincar"] == answer["version"]
    assert httpx.get(f"{url}/api/health").json() == {"status": "ok"}
    for path in ("/api/nowhere", "/api/identify"):  # ours, not Gradio's
        assert httpx.get(url + path).json()["error"].endswith(".")
    assert "Traceback" not in log.read_text()


def test_the_documentation_is_a_page_that_loads_nothing_else(browser, site):
    page, requested = browser.new_page(), []
    page.on("request", lambda request: requested.append(request.url))
    page.goto(f"{site[0]}/api/docs")
    assert requested == [f"{site[0]}/api/docs"]
    text = page.locator("body").inner_text()
    for words in ("POST /api/identify", "GET /api/model", "GET /api/health", "top", "overlay", "429", "unknown_car"):
        assert words in text
    page.get_by_role("link", name="Answer").first.click()
    assert page.locator("h3#Answer").is_visible()
    page.close()
    described = httpx.get(f"{site[0]}/api/openapi.json").json()
    assert described["servers"] == [{"url": "/api"}]
    assert set(described["paths"]) == {"/identify", "/model", "/health"}
    statuses = described["paths"]["/identify"]["post"]["responses"]
    assert set(statuses) == {"200", "400", "413", "415", "422", "429", "503"}


# In this process


@pytest.mark.parametrize(
    "request_",
    [
        form(photo=("photo.jpg", PHOTO)),
        form(file=PHOTO),
        {"url": "/identify", "content": PHOTO, "headers": {"content-type": "image/jpeg"}},
        {"url": "/identify", "content": PHOTO, "headers": {"content-type": "application/x-www-form-urlencoded"}},
        {"url": "/identify", "content": PHOTO},
    ],
    ids=["form", "any field", "body", "curl --data-binary", "no type"],
)
def test_a_photo_is_the_body_or_the_file_of_a_form(predictor, request_):
    [answer] = ask(predictor, request_)
    assert answer.json() == json.loads(json.dumps(as_dict(predictor(PHOTO, side=api.SHOWN_SIDE))))


def test_the_overlay_is_a_jpeg_of_at_most_1280_pixels(predictor):
    sent = {"url": "/identify?top=2&overlay=jpeg", "content": encoded(size=(3200, 2400))}
    [with_overlay, without] = (answer.json() for answer in ask(predictor, sent, sent | {"url": "/identify?top=2"}))
    kind, picture = with_overlay.pop("overlay").split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(picture))).size == (1280, 960)
    assert with_overlay == without and len(without["top"]) == 2
    assert with_overlay["box"][2] > 1280  # pixels of the photo, not of the overlay


WRONG = [
    ({"url": "/identify"}, 400, "No photo was received"),
    ({"url": "/identify", "files": {"photo": b""}}, 422, "empty"),
    ({"url": "/identify", "data": {"photo": "photo.jpg"}, "files": {}, "headers": {}}, 415, "not a picture"),
    ({"url": "/identify", "content": b"--x\r\n", "headers": {"content-type": "multipart/form-data"}}, 400, "multipart"),
    (
        {
            "url": "/identify",
            "content": b'--x\r\nContent-Disposition: form-data; name="photo"\r\n\r\nphoto.jpg\r\n--x--\r\n',
            "headers": {"content-type": "multipart/form-data; boundary=x"},
        },
        400,
        "put @ in front",
    ),
    (form(one=PHOTO, other=PHOTO), 400, "one photo per request"),
    ({"url": "/identify", "content": bytes(PHOTO_BYTES + 1)}, 413, "25 MB"),
    (form(photo=bytes(PHOTO_BYTES + 100_000)), 413, "25 MB"),
    (form(photo=b"no picture at all"), 415, "not a picture"),
    ({"url": "/identify", "json": {"photo": "photo.jpg"}}, 415, "not a picture"),
    (form(photo=PHOTO[:2000]), 422, "damaged"),
    (form(photo=encoded("PNG", (20, 10))), 422, "20 by 10 pixels"),
    (form(photo=VAST), 413, "megapixels"),
    (form(photo=PHOTO) | {"url": "/identify?top=0"}, 422, "`top`"),
    (form(photo=PHOTO) | {"url": "/identify?overlay=gif"}, 422, "`overlay`"),
    ({"url": "/nowhere", "method": "GET"}, 404, "/api/docs"),
    ({"url": "/identify", "method": "GET"}, 405, "method"),
]


@pytest.mark.parametrize(("request_", "status", "words"), WRONG, ids=[f"{each[1]} {each[2]}" for each in WRONG])
def test_an_error_is_a_status_and_a_sentence(predictor, request_, status, words):
    [answer] = ask(predictor, request_)
    assert answer.status_code == status
    assert answer.json().keys() == {"error"}
    assert words in answer.json()["error"] and re.fullmatch(r"[A-Z][^\n]*\.", answer.json()["error"])


@pytest.mark.slow
def test_hostile_files_sent_all_at_once_are_answered_or_refused_as_expected(tiny_model):
    cases = hostile_files.cases()
    answers = ask(Predictor.from_pretrained(tiny_model), *(form(photo=case.content) for case in cases), places=1000)
    for case, answer in zip(cases, answers, strict=True):
        assert answer.status_code in (200, 413, 415, 422), (case.id, answer.text)
        assert hostile_files.as_expected(case, None if answer.is_success else answer.json()["error"]), case.id


def test_a_failure_of_the_server_is_a_sentence_too():
    def fails(*_, **__):
        raise ZeroDivisionError("secret")

    [answer] = ask(fails, form(photo=PHOTO))
    assert answer.status_code == 500 and "secret" not in answer.text and answer.json()["error"].endswith(".")


def test_more_photos_than_places_are_refused_and_the_others_answered(predictor):
    gate = threading.Event()

    class Slow:
        def __call__(self, *args, **kwargs):
            gate.wait(30)
            return predictor(*args, **kwargs)

    threading.Timer(1, gate.set).start()
    one, others = {"x-forwarded-for": "1.2.3.4"}, [{"x-forwarded-for": f"5.6.7.{n}"} for n in range(6)]
    answers = ask(Slow(), *(form(photo=PHOTO) | {"headers": each} for each in [one] * 3 + others), places=4)
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 200, 429, 200, 200, 503, 503, 503, 503]
    for answer in answers:
        assert answer.is_success or (answer.headers["retry-after"] == "1" and answer.json()["error"].endswith("."))


def test_requests_of_many_clients_share_the_batches_of_the_engine(predictor, monkeypatch):
    sizes, run = [], predictor.engine._engine.run

    def recorded(pictures):
        sizes.append(len(pictures))
        return run(pictures)

    monkeypatch.setattr(predictor.engine._engine, "run", recorded)
    answers = ask(predictor, *[form(photo=PHOTO)] * 8)
    assert {answer.status_code for answer in answers} == {200}
    assert max(sizes) > 3 and sum(sizes) == 8 * 3  # the photo and its two cars each


# The schema


def strictly(schema: dict) -> dict:
    """The schema without further keys."""
    for each in [schema, *schema["$defs"].values()]:
        each["additionalProperties"] = False
    return schema


@pytest.mark.parametrize(
    ("boxes", "thresholds"),
    [(BOXES, {}), (BOXES, {"is_known": 1e9}), ((), {"is_car": 1e9}), (None, {})],
    ids=["two cars", "unknown", "no car", "no open-set data"],
)
def test_answers_follow_the_schema_in_the_documentation(tiny_model, boxes, thresholds):
    schema = json.loads((CHECKOUT / "docs" / "answer.schema.json").read_text(encoding="utf-8"))
    assert schema == api_schema.schema(), "python -m twincar.ui.api_schema > docs/answer.schema.json"
    assert set(schema["$defs"]["Car"]["properties"]["state"]["enum"]) == set(STATES)
    model = fake_predictor(*boxes, **thresholds) if boxes is not None else Predictor.from_pretrained(tiny_model)
    plain, overlay = (
        answer.json() for answer in ask(model, form(photo=PHOTO), form(photo=PHOTO) | {"url": "/identify?overlay=jpeg"})
    )
    jsonschema.Draft202012Validator.check_schema(schema)
    for answer in (plain, overlay, json.loads(json.dumps(as_dict(model(PHOTO))))):
        jsonschema.validate(answer, strictly(schema))
    assert re.fullmatch(r"\d+\.\d+\.\d+([-+.]\w+)*", plain["version"])
    assert all(field.get("description") for field in schema["properties"].values() if "$ref" not in field)
