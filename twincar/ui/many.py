"""The Many photos tab: photos, folders and zips in; a table that grows as they are answered, and the evidence for each.

The session keeps the row of each car and a thumbnail of about 2 kB; photo and features are freed once the rows exist.
Selecting a row answers its photo again from the file that Gradio stored, or from its zip. That takes 0.1 s and saves
hundreds of megabytes of memory.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from twincar import __version__
from twincar.batch import archive
from twincar.batch.results import as_csv, table_rows
from twincar.features.photo import PhotoError
from twincar.modeling.detection.boxes import Box, iou
from twincar.modeling.inference.describe import SHORT, as_dict, describe, percent
from twincar.modeling.inference.explain import overlay
from twincar.modeling.inference.prediction import Prediction
from twincar.text import count
from twincar.ui import answer_html, dropzone
from twincar.ui.added_cars import AddedCar, AddedCars, note
from twincar.ui.api_docs import tool_description
from twincar.ui.frame import data_url
from twincar.ui.identify import beside
from twincar.ui.scripted import scripted

BATCH_SIZE = 4  # photos in one run of the network; the table grows by as many
REDRAW = 0.3  # seconds between two updates of the table, at least
THUMBNAIL = (96, 72)  # pixels
SHOWN_SIDE = 1280  # pixels of a photo that is shown large
PLAIN_SIDE = 640  # of one without a car, which has no evidence
TOP = 5
ADVICE = "Select another row, or upload the photos again."
EXPIRED = "These photos are no longer stored here."

LIMITS = (
    f"Up to {archive.MAX_PHOTOS} photos at a time, up to {archive.PHOTO_BYTES // archive.MB} MB each; zips up to "
    f"{archive.ZIP_BYTES // archive.MB} MB. Unreadable files are listed with the reason."
)
TABLE = """<div class="controls"><div class="states" role="group" aria-label="Filter by state"></div>
<label>Minimum confidence <output>0\u00a0%</output><input type="range" min="0" max="100" step="5" value="0"
aria-label="Minimum confidence in per cent"></label><label>Search <input type="search" placeholder="car, make or file">
</label><p class="count" role="status"></p></div><div class="rows" tabindex="0" role="region" aria-label="The answers">
<table><thead><tr><th class="picture"><span>Photo</span></th>
<th class="file" data-key="file"><button type="button">File</button></th>
<th class="state" data-key="short"><button type="button">State</button></th>
<th class="name" data-key="class_name"><button type="button">Answer</button></th>
<th class="sure" data-key="probability"><button type="button">Confidence</button></th>
<th class="make" data-key="make"><button type="button">Make</button></th>
<th class="year" data-key="year"><button type="button">Year</button></th></tr></thead><tbody></tbody></table>
<p class="none" hidden><span></span> <button type="button">Show all rows</button></p></div>"""
CLOSE = """<button type="button" class="close"><span class="wide">Close</span><span class="narrow">Back to table</span>
</button>"""
OPENED = """() => setTimeout(() => {
    if (matchMedia("(max-width: 820px)").matches) document.querySelector("#detail")?.scrollIntoView();
    document.querySelector("#detail-close button")?.focus({ preventScroll: true });
}, 50)"""  # on a phone the detail takes the place of the table
CLOSED = """() => {
    const back = () => document.querySelector("#table .rows").dispatchEvent(new Event("closed", { bubbles: true }));
    const open = () => document.querySelector("#detail")?.getClientRects().length;
    const wait = () => open() ? requestAnimationFrame(wait) : back();
    wait();
}"""  # the focus can only go back to a table that is shown again


@dataclass
class Batch:
    """One batch of a visitor, shared by the events of the session, so that one can stop another.

    Attributes:
        items: The photos.
        rows: The rows of the table so far, one per car.
        done: Number of photos answered or refused so far.
        stopped: Whether the visitor stopped the batch.
    """

    items: list[archive.Item]
    rows: list[dict] = field(default_factory=list)
    done: int = 0
    stopped: bool = False


def tab(cars: AddedCars, added: gr.State, keep_for: float) -> None:
    """Draw the tab into the open Blocks.

    Args:
        cars: Makes the predictor of each visitor.
        added: The visitor's own cars.
        keep_for: Seconds for which the rows of a batch are kept.
    """
    kept = gr.State(None, time_to_live=keep_for)
    gr.HTML(_welcome(), elem_id="many-welcome")
    files = dropzone.zone(
        "files", "Photos, folders and zips", "Drop photos, a folder or a zip anywhere here", "Choose photos or zips",
        most=archive.MAX_PHOTOS,
    )  # fmt: skip
    with gr.Row(elem_id="progress", visible=False) as progress:
        status = gr.HTML(elem_id="status")
        stop = gr.Button("Stop", size="sm", elem_id="stop", visible=False)
        download = gr.DownloadButton("Download CSV", size="sm", elem_id="csv", visible=False)
    with gr.Row(elem_id="many", visible=False) as many:
        with gr.Column(elem_classes="side"):
            table = scripted({"rows": []}, TABLE, "many.js", "table")
        with gr.Column(elem_classes="main", visible=False, elem_id="detail") as detail:
            gr.HTML(CLOSE, apply_default_css=False, elem_id="detail-close")
            headline = gr.HTML(elem_id="detail-headline")
            slider = gr.ImageSlider(
                label="Photo and evidence", show_label=False, type="filepath", format="jpeg", interactive=False,
                buttons=["fullscreen"], max_height=340, elem_id="detail-slider",
            )  # fmt: skip
            legend = gr.HTML(elem_id="detail-legend")
            top5 = gr.HTML(elem_id="detail-top5")

    def start(mine: tuple[AddedCar, ...], event: gr.EventData) -> Iterator[dict[Any, Any]]:
        sent = event._data.get("files") if isinstance(event._data, dict) else None
        batch, predictor = Batch(_items(sent)), cars.predictor(mine)
        hidden = gr.Column(visible=False)
        yield {
            kept: batch, files: {"busy": True}, progress: gr.Row(visible=True), stop: _button(True),
            download: gr.DownloadButton(visible=False), many: gr.Row(visible=True), detail: hidden,
            table: {"rows": []}, status: _status(batch, True),
        }  # fmt: skip
        drawn = time.monotonic()
        for item, answer in zip(
            batch.items, predictor.stream(archive.read(batch.items), BATCH_SIZE, full_size=False), strict=True
        ):
            batch.rows += _shown_rows(item.name, batch.done, answer)
            batch.done += 1
            if batch.stopped:
                break
            if time.monotonic() - drawn > REDRAW:
                yield {table: {"rows": batch.rows}, status: _status(batch, True)}
                drawn = time.monotonic()
        yield {
            table: {"rows": batch.rows}, status: _status(batch, False), stop: _button(False),
            files: {"busy": False}, download: gr.DownloadButton(value=_csv(batch.rows, download), visible=True),
        }  # fmt: skip

    def halt(batch: Batch | None) -> gr.Button:
        if batch:
            batch.stopped = True
        return gr.Button("Stopping…", interactive=False)

    def show(batch: Batch | None, mine: tuple[AddedCar, ...], event: gr.EventData) -> dict[Any, Any]:
        place = event._data.get("index") if isinstance(event._data, dict) else None
        try:
            if not batch or not isinstance(place, int) or not 0 <= place < len(batch.rows):
                raise PhotoError(EXPIRED)
            row = batch.rows[place]
            answers = cars.predictor(mine)(batch.items[row["photo"]].read(), side=SHOWN_SIDE)
            prediction = _same_car(answers, row.get("bounds"))
        except PhotoError as error:
            hidden = gr.ImageSlider(visible=False)
            card = answer_html.error_card(str(error), ADVICE)
            return {detail: gr.Column(visible=True), headline: card, slider: hidden, legend: "", top5: ""}
        prediction.photo.thumbnail((SHOWN_SIDE, SHOWN_SIDE))
        name = escape(row["file"]) + (f", car {row['car']} of {row['cars']}" if (row["cars"] or 0) > 1 else "")
        shown = {
            detail: gr.Column(visible=True),
            headline: f'<p class="small">{name}</p>{answer_html.answer(prediction, note=note(prediction, mine))}',
        }
        if prediction.is_car is False:  # no evidence for a class that it does not show
            return shown | {slider: gr.ImageSlider(visible=False), legend: _plain(prediction), top5: ""}
        top = prediction.top(TOP)
        heatmap = prediction.heatmap()
        pair = prediction.photo, overlay(prediction.photo, heatmap)
        return shown | {
            slider: gr.ImageSlider(pair, visible=True, slider_position=beside(heatmap)),
            legend: answer_html.evidence(top[0].class_name, bool(heatmap.any())),
            top5: f"<h3>Top {len(top)}</h3>{answer_html.top_list(top)}",
        }

    def answer_many(photos: list[dict]) -> dict:
        """Identify every car in many photos. An unreadable file gives a row with the reason.

        Args:
            photos: Picture files (JPEG, PNG or WebP), or zips of them.

        Returns:
            rows: One per car, in the order of the photos, the largest car of a photo first: file, car (1 to cars), cars
                (their number in the photo), state, said, is_car and is_known (as of /identify), class_name, make,
                model, body, year and probability (0 to 1) of the most probable class, and its box x1, y1, x2, y2 in
                pixels. A photo without a car is one row with cars 0 and null for the class. A file that cannot be read:
                file and error.
            model: the model's name and version.
            version: of twincar.
        """
        items, predictor = _items(photos), cars.predictor(None)
        answers = predictor.stream(archive.read(items), BATCH_SIZE, full_size=False)
        rows = [row for item, answer in zip(items, answers, strict=True) for row in _rows(item.name, answer)]
        return {"rows": rows, "model": predictor.identity, "version": __version__}

    # A queue of its own, so that a single photo does not wait behind hundreds.
    private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    started = files.upload(
        start, added, [kept, files, progress, status, stop, download, many, detail, table],
        concurrency_id="many", concurrency_limit=2,
        **(private | {"show_progress": "full", "show_progress_on": [files]}),  # shows the place in the queue
    )  # fmt: skip
    started.failure(lambda: {"busy": False}, None, files, **private)
    stop.click(halt, kept, stop, **private)
    shown = [detail, headline, slider, legend, top5]
    chosen = table.select(show, [kept, added], shown, trigger_mode="always_last", **private)
    chosen.then(None, None, None, js=OPENED)
    closed = table.collapse(lambda: gr.Column(visible=False), None, detail, queue=False, **private)
    closed.then(None, js=CLOSED)
    sent, rows = gr.File(file_count="multiple", visible=False, label="photos"), gr.JSON(visible=False, label="rows")
    described: dict[str, Any] = {"api_name": "many", "api_description": tool_description(answer_many)}
    gr.on([], answer_many, sent, rows, preprocess=False, concurrency_id="many", **described)


def _items(sent: Any) -> list[archive.Item]:
    return archive.unpack(dropzone.listed(sent))


def _rows(name: str, answer: Prediction | PhotoError) -> list[dict]:
    return table_rows(name, str(answer) if isinstance(answer, PhotoError) else as_dict(answer, 1))


def _shown_rows(name: str, photo: int, answer: Prediction | PhotoError) -> list[dict]:
    """The rows of the table on the page: with the index of the photo, and of each car its bounds and a thumbnail."""
    rows = _rows(name, answer)
    if isinstance(answer, PhotoError):
        return [row | {"photo": photo, "thumbnail": ""} for row in rows]
    shown = []
    for row, car in zip(rows, answer.cars or [answer], strict=True):
        described = describe(car)
        extra = {"photo": photo, "bounds": car.bounds, "thumbnail": _thumbnail(car, alone=len(rows) == 1)}
        sure = None if row["probability"] is None else percent(row["probability"])
        shown.append(row | extra | {"label": described.label, "short": SHORT[described.state], "percent": sure})
    return shown


def _same_car(answer: Prediction, bounds: Box | None) -> Prediction:
    """The car of a row, among those found in its photo, which may have been read at another size before."""
    boxes = [(car, car.bounds) for car in answer.cars]
    return max(boxes, key=lambda each: iou(each[1], bounds) if each[1] and bounds else 0, default=(answer,))[0]


def _thumbnail(car: Prediction, alone: bool) -> str:
    """A small JPEG as a data URL: of the photo, or of one of its cars."""
    picture = car.photo.copy() if alone or not car.box else car.photo.crop(car.box)
    picture.thumbnail(THUMBNAIL)
    return data_url(picture, 60)


def _plain(prediction: Prediction) -> str:
    """The photo alone, as HTML."""
    photo = prediction.photo.copy()
    photo.thumbnail((PLAIN_SIDE, PLAIN_SIDE))
    return f'<img alt="The photo" src="{data_url(photo, 80)}">'


def _csv(rows: list[dict], button: gr.DownloadButton) -> str | None:
    """Write the table to a file that Gradio serves, and deletes with the others."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "twincar.csv"
        path.write_bytes(as_csv(rows))
        return button.move_resource_to_block_cache(path)


def _button(running: bool) -> gr.Button:
    return gr.Button("Stop", visible=running, interactive=running)


def _status(batch: Batch, running: bool) -> str:
    """A progress bar while the batch runs, then a sentence, which screen readers announce."""
    total, done = len(batch.items), batch.done
    failed = sum("error" in row for row in batch.rows)
    unread = f", {failed} could not be read" if failed else ""
    if running:
        return (
            f'<progress max="{total}" value="{done}" aria-label="Photos answered"></progress>'
            f"<p>{done} of {total} done{unread}</p>"
        )
    rest = "Select a row to see the evidence."
    if batch.stopped and done < total:
        return f'<p role="status"><b>Stopped after {done} of {total}</b>{unread}. {rest}</p>'
    cars = sum(bool(row.get("car")) for row in batch.rows)
    answered = f"{count(done - failed, 'photo')} answered</b>, {count(cars, 'car')} found"
    return f'<p role="status"><b>{answered}{unread}. {rest}</p>'


def _welcome() -> str:
    return (
        "<h2>Many photos at once</h2><p>The table grows as the photos are answered: sort it, filter it, download it as "
        f'a CSV.</p><p class="small">{LIMITS}</p>'
    )
