"""The About tab: the model, its scores, training, limits and licence, and how to call it from code.

The text about the model comes from its config, through `modeling/hub/card.py`.
"""

from html import escape
from pathlib import Path

import gradio as gr

from twincar import __version__
from twincar.modeling.hub import card
from twincar.modeling.inference.predictor import Predictor
from twincar.text import count
from twincar.ui.answer_html import with_code
from twincar.ui.quality import whole_photos

# {page} is the address of the page, which is known in the visitor's browser only.
PYTHON = """\
from twincar import Predictor

# a folder, or "user/repo" on the Hub
predictor = Predictor.from_pretrained("models/twincar")
answer = predictor("photo.jpg")
print(answer.top(5))
answer.overlay().save("why.png")"""
CLIENT = """\
from gradio_client import Client, handle_file

page = Client("{page}")
photo = handle_file("photo.jpg")
answer, overlay = page.predict(photo, api_name="/identify")
print(answer["top"][0]["class_name"], overlay)"""
CURL = "curl -F photo=@photo.jpg {page}/api/identify"
CALLS = (  # title and code
    ("In Python, where `twincar` is installed", PYTHON),
    ("From any program, through this page", CLIENT),
    ("From a shell", CURL),
)


def tab(predictor: Predictor, reports: Path | None) -> None:
    """Draw the tab into the open Blocks.

    Args:
        predictor: The model of the page.
        reports: The folder of reports, if there is one.
    """
    with gr.Row(elem_id="about"):
        with gr.Column(elem_classes="side", min_width=0):
            gr.HTML(_model(predictor, reports), elem_id="card")
            sections = card.sections(predictor.config)
            shown = [title for title in ("Training", "Input", "Limitations", "Licence") if title in sections]
            gr.Markdown("\n\n".join(f"### {title}\n\n{sections[title]}" for title in shown), elem_id="card-text")
        with gr.Column(elem_classes="main", min_width=0):
            gr.HTML(_calls(), elem_id="calls", js_on_load=Path(__file__).with_name("about.js").read_text("utf-8"))


def _calls() -> str:
    blocks = "".join(
        f'<div class="call"><h3>{with_code(title)}</h3><button type="button">Copy</button>'
        f'<pre tabindex="0"><code>{escape(code)}</code></pre></div>'
        for title, code in CALLS
    )
    return (
        f"<h2>Call it from code</h2>{blocks}"
        '<p>The last one needs nothing else: see <a href="api/docs">its documentation</a>. The full API, for many '
        "photos at once and for assistants, is under <b>Use via API or MCP</b> at the bottom of the page.</p>"
    )


def _model(predictor: Predictor, reports: Path | None) -> str:
    config, classes = predictor.config, count(len(predictor.class_names), "class", "classes")
    tiles = "".join(
        f"<div><dt>{escape(title)}</dt><dd><b>{value}</b><span>{interval}</span></dd></div>"
        for title, value, interval in card.headline_scores(config.get("scores", {}))
    )
    remark = config.get("scores", {}).get("remark", "")
    measured = f'<p>{card.measured_on(config)}</p><dl class="headlines">{tiles}</dl>' if tiles else ""
    whole = whole_photos(reports, brief=True)
    return (
        f"<h2>{escape(config.get('name', 'TwinCar'))}</h2>"
        f"<p>A {escape(config['architecture']['name'])} network with {classes}; twincar {__version__}.</p>"
        + (f"<h3>Whole photos</h3>{whole}" if whole else "")
        + (f"<h3>Pictures cropped to the car</h3>{measured}" if measured else "")
        + (f'<p class="small">{escape(remark)}</p>' if remark else "")
    )
