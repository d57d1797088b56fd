"""The REST API beside the page: a photo in one request in, the JSON of `twincar predict --json` out.

    curl -F photo=@photo.jpg http://127.0.0.1:7860/api/identify

`page.launch_options` mounts it in Gradio's app, behind the same headers and limits. The threads that answer concurrent
requests share the batches of the engine (`engines.base.BatchingEngine`).
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import SpooledTemporaryFile
from typing import IO, Annotated, Literal

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import FastAPI, HTTPException, Query, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, Response
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.types import Message, Receive

from twincar import __version__
from twincar.batch.archive import MB, PHOTO_BYTES, check_size
from twincar.features.photo import NotAPictureError, PhotoError, TooLargeError
from twincar.modeling.hub.model_folder import model_version
from twincar.modeling.inference.describe import as_dict
from twincar.modeling.inference.predictor import Predictor
from twincar.ui.api_docs import docs_page
from twincar.ui.api_schema import Answer
from twincar.ui.frame import data_url
from twincar.ui.uploads import NO_PHOTO

THREADS = 8  # photos answered at the same time
SHOWN_SIDE = 1280  # pixels of an overlay, at most
MULTIPART = 64 * 1024  # bytes around a photo in a multipart body, at most
STATUS = {TooLargeError: 413, NotAPictureError: 415}  # of other errors of a photo: 422
AGAIN = {"Retry-After": "1"}
BUSY = "Too many photos are waiting: send this one again in a moment."
GREEDY = "Too many photos from your address are waiting: send this one again when others are answered."
MALFORMED = "The body is not valid multipart/form-data: send the photo as the field `photo`, or as the body itself."
NO_FILE = "The field `photo` is text, not a file: with curl, put @ in front of the file's name."
SEVERAL = "There are several files in this request: send one photo per request."
FAILED = "The server could not answer this request: its log says why."
UNKNOWN = {404: "There is no such address: GET /api/docs lists them.", 405: "This address does not accept this method."}


class Error(BaseModel):
    """What was wrong, and what to do, in one sentence."""

    error: str


class ModelInfo(BaseModel):
    """The model of this page."""

    name: str
    version: str | None
    classes: list[str]
    license: str | None
    notice: str | None
    twincar: str


class Health(BaseModel):
    """The server is up."""

    status: Literal["ok"]


class Waiting:
    """Limits the photos that are waiting, in all and of one client.

    Args:
        places: How many in all; half of them for one client.
    """

    def __init__(self, places: int):
        self.places, self.taken = places, Counter[str]()

    def check(self, client: str) -> None:
        """Raise 429 or 503 if there is no place for one more photo of this client."""
        if self.taken[client] >= max(self.places // 2, 1):
            raise HTTPException(429, GREEDY, AGAIN)
        if self.taken.total() >= self.places:
            raise HTTPException(503, BUSY, AGAIN)

    @contextmanager
    def place(self, client: str) -> Iterator[None]:
        """Take a place while the block runs."""
        self.check(client)
        self.taken[client] += 1
        try:
            yield
        finally:
            self.taken[client] -= 1
            self.taken += Counter()  # without the clients that have none


def build(predictor: Predictor, places: int) -> FastAPI:
    """Build the app, to be mounted at /api.

    Args:
        predictor: Answers the photos.
        places: Photos that may wait at the same time.
    """
    app = FastAPI(
        title="TwinCar", version=__version__, docs_url=None, redoc_url=None, exception_handlers={
            StarletteHTTPException: _http_error, RequestValidationError: _invalid, Exception: _failed,
        },
        description="Make, model and year of a car from a photo, with calibrated probabilities and evidence.",
    )  # fmt: skip
    waiting, threads = Waiting(places), CapacityLimiter(THREADS)

    def answer(file: IO[bytes], top: int, overlay: bool) -> Response:
        try:
            check_size(file.seek(0, 2))
            file.seek(0)
            prediction = predictor(file.read(), side=SHOWN_SIDE)
        except PhotoError as error:
            raise HTTPException(STATUS.get(type(error), 422), str(error)) from error
        result = as_dict(prediction, top)
        if overlay:
            prediction.photo.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
            result["overlay"] = data_url(prediction.overlay(), 85)
        return JSONResponse(result)

    @app.post("/identify", response_model=Answer, responses=_errors(400, 413, 415, 422, 429, 503), openapi_extra=BODY)
    async def identify(
        request: Request,
        top: Annotated[int, Query(ge=1, description="number of classes per car")] = 5,
        overlay: Annotated[Literal["jpeg"] | None, Query(description="`jpeg` adds the evidence as a picture")] = None,
    ) -> Response:
        """Identify every car in a photo.

        The photo is the body of the request, or the field `photo` of a multipart form.
        """
        client = request.headers.get("x-forwarded-for") or (request.client.host if request.client else "")
        waiting.check(client)  # before the photo is received
        with SpooledTemporaryFile(MB) as body:
            file = await _receive(Request(request.scope, _limited(request.receive)), body)
            with waiting.place(client):
                return await run_sync(answer, file, top, overlay is not None, limiter=threads)

    @app.get("/model")
    async def model() -> ModelInfo:
        """Describe the model: its name, version, classes and licence."""
        config = predictor.config
        return ModelInfo(
            name=config.get("name", "twincar"),
            version=model_version(config),
            classes=list(predictor.class_names),
            license=config.get("license_name") or config.get("license"),
            notice=config.get("notice"),
            twincar=__version__,
        )

    @app.get("/health")
    async def health() -> Health:
        """Check that the server is up."""
        return Health(status="ok")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> HTMLResponse:
        return HTMLResponse(docs_page(app.openapi()))

    return app


BINARY = {"type": "string", "format": "binary"}
FORM = {"type": "object", "properties": {"photo": BINARY}, "required": ["photo"]}
BODY = {
    "requestBody": {
        "required": True,
        "content": {"multipart/form-data": {"schema": FORM}, "image/*": {"schema": BINARY}},
    }
}


async def _receive(request: Request, body: IO[bytes]) -> IO[bytes]:
    """Receive the photo: the file of a multipart form, or the body, which is written to `body`."""
    if request.headers.get("content-type", "").lower().startswith("multipart/"):
        try:
            form = await request.form()
        except StarletteHTTPException as error:
            raise HTTPException(400, MALFORMED) if error.status_code == 400 else error from error
        files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
        if not files:
            raise HTTPException(400, NO_FILE if "photo" in form else NO_PHOTO)
        if len(files) > 1:
            raise HTTPException(400, SEVERAL)
        return files[0].file
    async for chunk in request.stream():
        body.write(chunk)
    if not body.tell():
        raise HTTPException(400, NO_PHOTO)
    return body


def _limited(receive: Receive) -> Receive:
    """`receive`, which stops a body that is larger than a photo may be."""
    received = 0

    async def limited() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > PHOTO_BYTES + MULTIPART:
            raise HTTPException(413, f"Photos of up to {PHOTO_BYTES // MB} MB are accepted: send a smaller one.")
        return message

    return limited


def _errors(*statuses: int) -> dict[int | str, dict]:
    return {status: {"model": Error} for status in statuses}


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, StarletteHTTPException)
    sentence = UNKNOWN.get(error.status_code, error.detail)
    return JSONResponse({"error": sentence}, error.status_code, error.headers)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"The parameter `{first['loc'][-1]}` is invalid: {first['msg'].lower()}."}, 422)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": FAILED}, 500)
