"""What several tabs say about a photo's answer, as HTML. Whatever came from a file or a model is escaped here.

The sentences are those of `saying.py`, which the command line prints as well.
"""

import re
from html import escape

from twincar.modeling.inference.describe import Description, confused_classes, describe, how_often, percent
from twincar.modeling.inference.prediction import Guess, Prediction

METHODS = (
    "Grad-CAM++ shows what the network looked at most, and changes little from name to name; HiResCAM keeps to what "
    "counts for this name more than for others."
)


def answer(prediction: Prediction, below: str = "", where: str = "this photo") -> str:
    """The name in large, how sure, what comes next, and the name's parts. `below` is HTML for the end, `where` what
    was looked at."""
    said, best = describe(prediction, where), prediction.top(1)[0]
    mood = "answer" if said.state in ("car", "model", "make") else f"answer {said.state}"
    return f'<div class="{mood}">{_told(said, best)}{_similar(prediction)}{below}</div>'


def _told(said: Description, best: Guess) -> str:
    then = f"<p>{_bold(said.then, said.names)}</p>"
    if said.state == "none":
        return f"<h2>{escape(said.lead)}</h2>{then}"
    if said.state == "unknown":
        return f'<p class="sure"><b>{escape(said.lead)}</b></p><p>It looks most like the</p>{_name(best)}{facts(best)}'
    sure = f'<p class="sure"><b>{said.sure}</b> {percent(said.share)}</p>'
    if said.state == "unsure":
        return f"{sure}<p>It looks most like the</p>{_name(best)}{then}{facts(best)}"
    if said.likely:
        return f'{sure}<h2>{escape(said.lead)}</h2><p class="likely">{escape(said.likely)}</p>{then}'
    return f"{sure}{_name(best)}{then}{facts(best)}"


def _name(best: Guess) -> str:
    name = best.class_name.removesuffix(str(best.year or "")).strip()
    rest = escape(name.removeprefix(best.make).strip())
    year = f' <span class="year">{best.year}</span>' if best.year else ""
    return f'<h2><span class="make">{escape(best.make)}</span> {rest}{year}</h2>'


def _similar(prediction: Prediction) -> str:
    rows = [f"<b>{escape(similar.class_name)}</b> ({how_often(similar)})" for similar in confused_classes(prediction)]
    return f'<p class="small alike">Often confused with {", ".join(rows)}.</p>' if rows else ""


def _bold(sentence: str, names: tuple[str, ...]) -> str:
    """The sentence, its class names in bold."""
    told = escape(sentence)
    for name in names:
        told = re.sub(re.escape(escape(name)), lambda found: f"<b>{found[0]}</b>", told, count=1)
    return told


def facts(guess: Guess) -> str:
    """Make, model, body and year, as far as the class name tells them."""
    parts = {"Make": guess.make, "Model": guess.model, "Body": guess.body, "Year": guess.year}
    rows = (f"<div><dt>{word}</dt><dd>{escape(str(value))}</dd></div>" for word, value in parts.items() if value)
    return f'<dl class="facts">{"".join(rows)}</dl>'


def nearest(top: list[Guess]) -> str:
    """The nearest answers as a list with bars, where there is nothing to choose."""
    rows = (
        f'<li style="--share:{guess.probability:.4f}"><span>{escape(guess.class_name)}</span>'
        f"<b>{percent(guess.probability)}</b></li>"
        for guess in top
    )
    return f'<ol class="nearest">{"".join(rows)}</ol>'


def nearest_label(count: int) -> str:
    return "The five nearest" if count == 5 else f"The {count} nearest"


def nearest_info(prediction: Prediction | None) -> str:
    if prediction and (prediction.is_car is False or prediction.is_known is False):
        return "The figures compare only the cars that I know. Choose one to see what speaks for it."
    return "Choose one to see what speaks for it."


def evidence(class_name: str, found: bool) -> str:
    """What the heat over the photo means."""
    if not found:
        return f"<p>Nothing in this photo spoke for <b>{escape(class_name)}</b>: both halves are the photo.</p>"
    return (
        f"<p>The bright parts spoke most for <b>{escape(class_name)}</b>; what is left as it was said little. "
        "Drag the handle to compare.</p>"
        '<p class="scale" aria-hidden="true"><span>little</span><i></i><span>most</span></p>'
    )


def trouble(sentence: str, advice: str) -> str:
    return (
        f'<div class="trouble"><h2>That did not work</h2><p>{escape(sentence)}</p><p class="small">{advice}</p></div>'
    )
