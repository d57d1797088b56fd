"""The page as a whole: header, tabs, footer and theme, built and launched by `app.py`.

    page.build(predictor).launch(**page.launch_options(predictor))

It makes no request to third parties: system fonts, no analytics, no public link.
"""

import inspect
from html import escape
from pathlib import Path
from typing import Any

import gradio as gr
from starlette.middleware import Middleware
from starlette.responses import FileResponse
from starlette.routing import Mount, Route

from twincar.batch.archive import MB, PHOTO_BYTES, ZIP_BYTES
from twincar.config import IMAGE_SUFFIXES, STANFORD_CARS, parse_class_name
from twincar.modeling.inference.predictor import Predictor
from twincar.plots import palette
from twincar.text import count
from twincar.ui import about, api, explore, identify, many, quality, teach
from twincar.ui import examples as examples_of
from twincar.ui.added_cars import AddedCars
from twincar.ui.document import PICTURE, PICTURE_PATH, TITLE, Document
from twincar.ui.examples import Example
from twincar.ui.headers import SecurityHeaders, headers
from twincar.ui.uploads import CheckedBlocks, cleaner

HERE = Path(__file__).parent
CLEAN_EVERY, DELETE_AFTER = 600, 1800  # seconds, for the files of visitors
MAX_QUEUE = 64  # requests; a further one gets the message that the page is busy
SESSIONS = 256  # whose last answers are kept in memory, about 4 MB each
FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "Helvetica Neue", "Arial", "sans-serif")
MONO = ("ui-monospace", "SFMono-Regular", "Consolas", "monospace")

# A palette taken from inferno, the colours of the heatmap: violet and amber differ in lightness as well as in hue.
VIOLET = gr.themes.Color(
    name="violet", c50="#f6f2fb", c100="#ece4f6", c200="#d8c8ec", c300="#bda2dd", c400="#9a74c8", c500="#7a4bb0",
    c600="#5f2f96", c700="#4a1d7c", c800="#391461", c900="#2a0d4a", c950="#1b0832",
)  # fmt: skip
INK = gr.themes.Color(
    name="ink", c50="#faf8fc", c100="#f3f0f7", c200="#e5e0ec", c300="#cdc5d9", c400="#9f95b0", c500="#766b89",
    c600="#5a506c", c700="#3f3550", c800="#271e36", c900="#1b1328", c950="#120c1c",
)  # fmt: skip


def build(
    predictor: Predictor,
    notice: str | None = None,
    examples: list[Example] | None = None,
    reports: Path | None = None,
    data: Path | None = None,
    feedback: Path | None = None,
    keep: Path | None = None,
) -> gr.Blocks:
    """Build the page, not launched. The address `/?tab=many` opens it at a tab.

    Args:
        predictor: Answers the photos.
        notice: A sentence at the top, such as that another model is used than the one that was requested.
        examples: Pictures to offer.
        reports: The folder that `twincar report` wrote, if there is one.
        data: The folder that `twincar prepare` wrote, if there is one.
        feedback: A CSV file for what visitors say about the answers; None does not ask them.
        keep: A model folder in which the cars that visitors add are kept; None keeps none.
    """
    cars = AddedCars(predictor, keep)
    with CheckedBlocks(title=TITLE, analytics_enabled=False, delete_cache=(CLEAN_EVERY, DELETE_AFTER)) as demo:
        if notice:
            gr.HTML(f'<p role="note">{escape(notice)}</p>', elem_id="notice")
        added = gr.State(())  # a visitor's own cars
        gr.HTML(_header(), elem_id="header")
        with gr.Tabs(elem_id="tabs", overflow_behavior="wrap"):  # the ids are what page.js reads from the address
            with gr.Tab("Identify", id="identify"):
                identify.tab(cars, added, scope(predictor), examples or [], DELETE_AFTER, feedback)
            with gr.Tab("Many photos", id="many"):
                many.tab(cars, added, keep_for=DELETE_AFTER)
            with gr.Tab("Teach it", id="teach"):
                teach.tab(cars, added, keep_for=DELETE_AFTER)
            with gr.Tab("Explore the data", id="explore"):
                explore.tab(data, reports)
            with gr.Tab("How good is it", id="quality"):
                quality.tab(reports)
            with gr.Tab("About", id="about"):
                about.tab(predictor, reports)
        gr.Markdown(_footer(predictor), elem_id="footer")
    # Gradio inspects the arguments of every component for each new session, and every API call is a new session.
    # Doing that once here makes a call four times as fast.
    for kind in {type(block) for block in demo.blocks.values()}:
        kind.__init__.__signature__ = inspect.signature(kind.__init__)
    # The default sends every waiting visitor their place after each answer, instead of once a second.
    demo.queue(default_concurrency_limit=4, max_size=MAX_QUEUE, status_update_rate=1)
    return demo


def launch_options(predictor: Predictor, examples: list[Example] | None = None) -> dict[str, Any]:
    """The arguments of `Blocks.launch`: style, limits, the REST API, and no requests to third parties.

    Args:
        predictor: Answers the photos that are sent to the REST API.
        examples: The pictures that `build` was given.

    Raises:
        TwinCarError: The variable TWINCAR_FRAME_ANCESTORS is not valid.
    """
    return {
        "theme": theme(),
        "css_paths": [HERE / f"{name}.css" for name in ("style", "frame", "dropzone", "many", "teach", "charts")],
        "js": (HERE / "page.js").read_text(encoding="utf-8").replace("SUFFIXES", ",".join(sorted(IMAGE_SUFFIXES))),
        "head": '<meta name="color-scheme" content="light dark"><link rel="icon" href="data:image/svg+xml,'
        "%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 32 32'%3E%3Crect width='32' height='32' rx='8' "
        "fill='%23391461'/%3E%3Ccircle cx='12' cy='16' r='6' fill='%23fb9b06'/%3E%3Ccircle cx='20' cy='16' r='6' "
        "fill='none' stroke='%23fff' stroke-width='2'/%3E%3C/svg%3E\">",
        "footer_links": ["api"],
        "app_kwargs": {
            "middleware": [Middleware(SecurityHeaders, headers=headers()), Middleware(Document)],
            "lifespan": cleaner(CLEAN_EVERY, DELETE_AFTER),
            "routes": [
                Mount("/api", api.build(predictor, MAX_QUEUE)),
                Route(PICTURE_PATH, lambda _: FileResponse(PICTURE)),
                examples_of.route(examples or []),
            ],
        },
        "max_file_size": ZIP_BYTES,  # the smaller limit of a photo is checked where it is read
        "state_session_capacity": SESSIONS,
        "run_history": False,  # else Gradio keeps every visitor's photos in the browser
        "enable_monitoring": False,
        "ssr_mode": False,
        "pwa": False,
    }


def scope(predictor: Predictor) -> str:
    """A short description of the model's classes, from its class names: "196 cars of Stanford Cars, 1991–2012"."""
    names = predictor.class_names
    years = sorted({car.year for car in map(parse_class_name, names) if car.year})
    dataset = "Stanford Cars" if names == STANFORD_CARS else predictor.config.get("training", {}).get("dataset")
    text = count(len(names), "car") + (f" of {dataset}" if dataset else "")
    return text + (f", {years[0]}–{years[-1]}" if len(years) > 1 else f", {years[0]}" if years else "")


def theme() -> gr.themes.Base:
    """The theme, light and dark."""
    return gr.themes.Base(
        primary_hue=VIOLET, secondary_hue=VIOLET, neutral_hue=INK, radius_size="lg", font=FONTS, font_mono=MONO
    ).set(
        body_background_fill="#faf8fc",
        body_background_fill_dark="#120c1c",
        body_text_color=palette.INK,
        body_text_color_dark=palette.DARK_INK,
        body_text_color_subdued=palette.SUBDUED,
        body_text_color_subdued_dark=palette.DARK_SUBDUED,
        background_fill_primary=palette.GROUND,
        background_fill_primary_dark=palette.DARK_GROUND,
        background_fill_secondary="#f3f0f7",
        background_fill_secondary_dark="#221830",
        block_background_fill=palette.GROUND,
        block_background_fill_dark=palette.DARK_GROUND,
        block_border_color=palette.RULE,
        block_border_color_dark=palette.DARK_RULE,
        border_color_primary=palette.RULE,
        border_color_primary_dark=palette.DARK_RULE,
        block_shadow="none",
        link_text_color="#5f2f96",
        link_text_color_dark="#d0b4f5",
        link_text_color_hover="#391461",
        link_text_color_hover_dark="#ece4f6",
        error_background_fill="#fff5e8",
        error_background_fill_dark="#2b1d12",
    )


def _header() -> str:
    return "<header><h1>Twin<b>Car</b></h1><p>Car make, model and year from a photo, with the evidence.</p></header>"


def _footer(predictor: Predictor) -> str:
    lines = [
        "Your photos stay on this server, are used only to answer you, and are deleted within about an hour. "
        f"Photos up to {PHOTO_BYTES // MB} MB."
    ]
    if predictor.config.get("notice"):
        lines.append(predictor.config["notice"])
    return "\n\n".join(lines)
