"""An answer as HTML, shared by the tabs. Text that comes from a file or a model is escaped here.

The sentences are those of `inference/describe.py`, which the command line prints as well.
"""

import re
from html import escape

from twincar.modeling.inference.describe import Description, confused_classes, describe, how_often, percent
from twincar.modeling.inference.prediction import Guess, Prediction

TAKE = """<p class="take"><button type="button" data-do="copy">Copy answer</button><button type="button" data-do="save">
Save picture</button><button type="button" data-do="share" hidden>Share</button></p>"""


def answer(
    prediction: Prediction, where: str = "this photo", which: str = "", take: bool = False, note: str = ""
) -> str:
    """The answer: confidence, class name in large, and the runner-up.

    Args:
        prediction: The answer to show.
        where: The name of the area that was read.
        which: Which of several cars it is about, such as "Car 1 of 2".
        note: A sentence for the end.
        take: Whether buttons that copy, save and share the answer are below it; `answer.js` runs them.
    """
    description, best = describe(prediction, where), prediction.top(1)[0]
    state = "answer" if description.state in ("car", "model", "make") else f"answer {description.state}"
    above = f'<p class="which">{escape(which)}</p>' if which else ""
    below = TAKE if take and description.state != "no_car" else ""
    noted = f'<p class="note">{escape(note)}</p>' if note else ""
    html = f"{above}{_description(description, best)}{_similar(prediction)}{noted}{below}"
    return f'<div class="{state}" data-text="{escape(description.text)}">{html}</div>'


def _description(answer: Description, best: Guess) -> str:
    then = f"<p>{_bold(answer.then, answer.names)}</p>" if answer.then else ""
    if answer.state == "no_car":
        return f"<h2>{escape(answer.lead)}</h2>{then}"
    if answer.state == "unknown_car":  # no parts of a name: they would read as facts
        return f"<h2>{escape(answer.lead)}</h2>{then}"
    figure = "" if answer.probability is None else f" {percent(answer.probability)}"
    sure = f'<p class="sure"><b>{answer.sure}</b>{figure}</p>'
    if answer.state == "unsure":
        return f"{sure}<p>Closest match:</p>{_name(best)}{then}"
    if answer.likely:
        return f'{sure}<h2>{escape(answer.lead)}</h2><p class="likely">{escape(answer.likely)}</p>{then}'
    return f"{sure}{_name(best)}{then}"


def _name(best: Guess) -> str:
    """The class name as a heading, its make, body and year set apart."""
    rest = escape(best.class_name.removesuffix(str(best.year or "")).strip().removeprefix(best.make).strip())
    if best.body and rest.endswith(escape(best.body)):
        rest = f'{rest.removesuffix(escape(best.body))}<span class="body">{escape(best.body)}</span>'
    year = f' <span class="year">{best.year}</span>' if best.year else ""
    return f'<h2><span class="make">{escape(best.make)}</span> <span class="model">{rest}</span>{year}</h2>'


def _similar(prediction: Prediction) -> str:
    rows = [f"<b>{escape(similar.class_name)}</b> ({how_often(similar)})" for similar in confused_classes(prediction)]
    return f'<p class="small">Similar: {", ".join(rows)}.</p>' if rows else ""


def _bold(sentence: str, names: tuple[str, ...]) -> str:
    """The sentence as HTML, with the class names in bold."""
    html = escape(sentence)
    for name in names:
        html = re.sub(re.escape(escape(name)), lambda found: f"<b>{found[0]}</b>", html, count=1)
    return html


def with_code(sentence: str) -> str:
    """The sentence as HTML, with the parts in backticks as code."""
    return re.sub("`([^`]+)`", r"<code>\1</code>", escape(sentence))


def top_list(top: list[Guess]) -> str:
    """The most probable classes as a list with bars, where there is nothing to select."""
    rows = (
        f'<li style="--fraction:{guess.probability:.4f}"><span>{escape(guess.class_name)}</span>'
        f"<b>{percent(guess.probability)}</b></li>"
        for guess in top
    )
    return f'<ol class="top-list">{"".join(rows)}</ol>'


def top_info(prediction: Prediction | None) -> str:
    """The sentence under the heading of the top 5."""
    select = "Pick one to see the evidence for it."
    if prediction and (prediction.is_car is False or prediction.is_known is False):
        return f"These percentages only compare the known cars. {select}"
    return select


def evidence(class_name: str, found: bool) -> str:
    """What the heatmap over the photo means; `found` is False for an empty one."""
    if not found:
        return f"<p>No evidence for <b>{escape(class_name)}</b> in this photo: both halves show the photo.</p>"
    return (
        f"<p>The bright areas counted most towards <b>{escape(class_name)}</b>, untouched areas little. "
        "Drag the handle to compare.</p>"
        '<p class="scale" aria-hidden="true"><span>least</span><i></i><span>most</span></p>'
    )


def error_card(sentence: str, advice: str) -> str:
    """An error in place of an answer: what is wrong, and what to do."""
    return (
        f'<div class="trouble"><h2>That did not work</h2><p>{escape(sentence)}</p><p class="small">{advice}</p></div>'
    )
