"""What several tabs say about a photo's answer, as HTML. Whatever came from a file or a model is escaped here."""

from html import escape

from twincar.modeling.predict import Guess

MAYBE = 0.5  # below this the first guess is more likely wrong than right, by the model's own account
SURE = (  # from this probability on -> the words
    (0.9, "Very sure"),
    (0.7, "Fairly sure"),
    (MAYBE, "More likely than not"),
    (0.0, "Not sure"),
)


def percent(probability: float) -> str:
    """For people: nothing is certain, and nothing on the list is impossible."""
    words = "over 99" if probability >= 0.995 else "under 1" if probability < 0.005 else f"{100 * probability:.0f}"
    return f"{words}\N{NO-BREAK SPACE}%"


def answer(top: list[Guess], below: str = "") -> str:
    """The name in large, how sure, what comes next, and the name's parts. `below` is HTML for the end."""
    best = top[0]
    words = next(words for least, words in SURE if best.probability >= least)
    mood = "answer" if best.probability >= MAYBE else "answer unsure"
    name = best.class_name.removesuffix(str(best.year or "")).strip()
    rest = escape(name.removeprefix(best.make).strip())
    year = f' <span class="year">{best.year}</span>' if best.year else ""
    return (
        f'<div class="{mood}"><p class="sure"><b>{words}</b> {percent(best.probability)}</p>'
        f'<h2><span class="make">{escape(best.make)}</span> {rest}{year}</h2>'
        f"<p>{_next_best(top)}</p>{facts(best)}{below}</div>"
    )


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


def _next_best(top: list[Guess]) -> str:
    if len(top) < 2:
        return "It knows no other car."
    second = top[1].probability
    other = f"<b>{escape(top[1].class_name)}</b>"
    if top[0].probability < MAYBE:
        return f"This is only the nearest look; {other} comes next with {percent(second)}."
    if second >= 0.1:
        return f"It could also be {other}, with {percent(second)}."
    if second >= 0.02:
        return f"Next comes {other} with {percent(second)}."
    return f"Nothing else comes near; {other} is next with {percent(second)}."
