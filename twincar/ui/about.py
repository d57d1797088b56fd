"""The About tab: the model, its scores, training, limits and licence, and how to call it from code.

The text about the model comes from its config, through `modeling/hub/card.py`.
"""

import json
from html import escape
from typing import Literal

import gradio as gr

from twincar import __version__
from twincar.modeling.hub import card
from twincar.modeling.inference.predictor import Predictor
from twincar.text import count

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
CALLS: tuple[tuple[str, str, Literal["python", "shell"]], ...] = (  # title, code, its language
    ("In Python, where `twincar` is installed", PYTHON, "python"),
    ("From any program, through this page", CLIENT, "python"),
    ("From a shell", CURL, "shell"),
)


def tab(predictor: Predictor, page: gr.Blocks) -> None:
    """Draw the tab into the open Blocks `page`."""
    with gr.Row(elem_id="about"):
        with gr.Column(elem_classes="side", min_width=0):
            gr.HTML(_model(predictor), elem_id="card")
            sections = card.sections(predictor.config)
            shown = [title for title in ("Training", "Input", "Limitations", "Licence") if title in sections]
            gr.Markdown("\n\n".join(f"### {title}\n\n{sections[title]}" for title in shown), elem_id="card-text")
        with gr.Column(elem_classes="main", min_width=0):
            gr.HTML("<h3>Call it from code</h3>", elem_id="calls")
            blocks = []
            for title, code, language in CALLS:
                gr.Markdown(title, elem_classes="call")
                blocks.append(
                    gr.Code(
                        code.replace("{page}", "http://127.0.0.1:7860"), language=language, interactive=False,
                        show_label=False, show_line_numbers=False, wrap_lines=True, buttons=["copy"],
                        elem_classes="code",
                    )
                )  # fmt: skip
            gr.HTML(
                '<p>The last one needs nothing else: <a href="api/docs">its documentation</a>. Many photos at once: '
                "<code>/many</code> takes a list of files; see <b>Use via API</b> at the bottom of the page.</p>"
            )
    # The address that the visitor uses, which a server behind a proxy cannot determine.
    codes = json.dumps([code for _, code, _ in CALLS])
    here = 'location.href.split(/[?#]/)[0].replace(/\\/+$/, "")'
    page.load(None, None, blocks, js=f'() => {codes}.map((code) => code.replaceAll("{{page}}", {here}))')


def _model(predictor: Predictor) -> str:
    config, classes = predictor.config, count(len(predictor.class_names), "class", "classes")
    tiles = "".join(
        f"<div><dt>{escape(title)}</dt><dd><b>{value}</b><span>{interval}</span></dd></div>"
        for title, value, interval in card.headline_scores(config.get("scores", {}))
    )
    remark = config.get("scores", {}).get("remark", "")
    measured = f'<p>{card.measured_on(config)}</p><dl class="headlines">{tiles}</dl>' if tiles else ""
    return (
        f"<h2>{escape(config.get('name', 'TwinCar'))}</h2>"
        f"<p>A {escape(config['architecture']['name'])} network with {classes}; twincar {__version__}.</p>{measured}"
        + (f'<p class="small">{escape(remark)}</p>' if remark else "")
    )
