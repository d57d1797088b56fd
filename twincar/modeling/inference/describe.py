"""A Prediction in plain sentences, for the page and the command line.

    describe(predictor("photo.jpg")).text   # "BMW M3 Coupe 2012, very sure (96 %). No other class is close: ..."

No sentence claims certainty.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports this before it needs torch
    from twincar.modeling.inference.prediction import Guess, Prediction, SimilarClass

LIKELY = 0.5  # below this probability the top class is more likely wrong than right
LIKELY_GROUP = 0.8  # a make or model at least this probable is the answer where no class reaches LIKELY
VERY = 0.9
SURE = (  # lowest probability -> text
    (VERY, "Very sure"),
    (0.7, "Fairly sure"),
    (LIKELY, "More likely than not"),
    (0.0, "Not sure"),
)


@dataclass(frozen=True)
class Description:
    """The sentences of an answer, and their parts.

    Attributes:
        state: "car" (one class), "model" or "make" (several classes of one), "unsure" (none of these), "unknown"
            (a car, but probably none of the model's classes), or "none" (no car).
        lead: The answer, fit for a heading.
        first: The answer as a sentence.
        then: A second sentence, about the next class; may be "".
        names: The classes that `then` names.
        likely: For "model" and "make", the most probable class among them.
        sure: Confidence in the lead, in words; "" for "unknown" and "none", because the probabilities compare the
            model's classes only.
        probability: Probability (0-1) of the lead; None where `sure` is "".
    """

    state: str
    lead: str
    first: str
    then: str = ""
    names: tuple[str, ...] = ()
    likely: str = ""
    sure: str = ""
    probability: float | None = None

    @property
    def text(self) -> str:
        """Both sentences."""
        return f"{self.first} {self.then}".strip()


def describe(answer: "Prediction", where: str = "this photo") -> Description:
    """Describe an answer in one or two sentences.

    Args:
        answer: What to describe.
        where: Name of the area that was read, if it is not the whole photo.
    """
    best = answer.top(1)[0]
    if answer.is_car is False:
        lead = f"No car found in {where}"
        return Description("none", lead, f"{lead}.", *_closest(best))
    if answer.is_known is False:
        lead = "A car, but probably none of the known models"
        return Description("unknown", lead, f"{lead}.", *_closest(best))
    if best.probability >= LIKELY:
        sure = how_sure(best.probability)
        first = f"{best.class_name}, {sure.lower()} ({percent(best.probability)})."
        return Description("car", best.class_name, first, *_next(answer, best), sure=sure, probability=best.probability)
    for state, name, probability in _groups(answer, best):
        if probability >= LIKELY_GROUP:
            lead = f"{article(name).capitalize()} {name}"
            rest = best.class_name.removeprefix(name).strip() or best.class_name
            likely = (
                f"most likely {'that of' if rest == str(best.year) else 'the'} {rest} ({percent(best.probability)})"
            )
            first, sure = f"{lead} ({percent(probability)}), {likely}.", f"{how_sure(probability)} of the {state}"
            return Description(
                state, lead, first, *_also(answer.top(2)[1]), likely=likely, sure=sure, probability=probability
            )
    first = f"Not sure: the closest match is the {best.class_name} ({percent(best.probability)})."
    return Description(
        "unsure", best.class_name, first, *_body_or_next(answer, best), sure=how_sure(0), probability=best.probability
    )


def as_dict(answer: "Prediction", k: int = 5) -> dict[str, Any]:
    """An answer for programs, ready for JSON.

    `is_car`, `is_known` and `box` are None from a model without open-set data or detector; boxes are in pixels of the
    upright photo at its full size.

    Args:
        answer: What to describe.
        k: Number of classes under `top`.

    Returns:
        `said` (the sentences), `top` (the k most probable classes), `makes` (the three most probable makes), `is_car`,
        `is_known`, `box` (the car that the answer is for) and `others` (boxes of the other cars).
    """
    makes = list(answer.makes().items())[:3]
    return {
        "said": f"{describe(answer).text} {more_cars(len(answer.others))}".strip(),
        "top": [guess.as_dict() for guess in answer.top(k)],
        "makes": [{"make": make, "probability": probability} for make, probability in makes],
        "is_car": answer.is_car,
        "is_known": answer.is_known,
        "box": answer.in_full(answer.box),
        "others": [answer.in_full(box) for box in answer.others],
    }


def more_cars(others: int) -> str:
    """A sentence about the number of cars in the photo; "" where there are no others."""
    return f"This answer is for the largest of {others + 1} cars." if others else ""


def confused_classes(answer: "Prediction") -> list["SimilarClass"]:
    """Similar classes that were confused with the top class in validation; empty unless it shows a known car."""
    if answer.is_car is False or answer.is_known is False:
        return []
    return [similar for similar in answer.similar_classes() if similar.confusions]


def how_often(similar: "SimilarClass") -> str:
    """The number of confusions of a similar class, in words."""
    pictures = "picture of the two was" if similar.confusions == 1 else "pictures of the two were"
    return f"{similar.confusions} validation {pictures} confused"


def how_sure(probability: float) -> str:
    """A probability in words."""
    return next(words for least, words in SURE if probability >= least)


def percent(probability: float) -> str:
    """A probability for people, such as "96 %"; never 0 or 100 %."""
    words = "over 99" if probability >= 0.995 else "under 1" if probability < 0.005 else f"{100 * probability:.0f}"
    return f"{words}\N{NO-BREAK SPACE}%"


def article(name: str) -> str:
    """The indefinite article before a name: "a" or "an"."""
    return "an" if name[:1] in "AEIOUaeiou" else "a"


def _groups(answer: "Prediction", best: "Guess") -> Iterator[tuple[str, str, float]]:
    """(state, name, probability) of the groups of classes that the top class is in, smallest first.

    Its model and body in any year, its model with any body, its make.
    """
    name = best.class_name.removesuffix(str(best.year or "")).strip()
    yield "model", name, answer.models()[name]
    if best.model:
        family = (guess for guess in answer.top(len(answer.class_names)) if _model(guess) == _model(best))
        yield "model", f"{best.make} {best.model}", sum(guess.probability for guess in family)
    yield "make", best.make, answer.makes()[best.make]


def _model(guess: "Guess") -> tuple[str, str]:
    return guess.make, guess.model


# Each of these gives `then` and `names` of a Description.


def _closest(best: "Guess") -> tuple[str, tuple[str, ...]]:
    return f"The closest match is the {best.class_name}.", (best.class_name,)


def _also(second: "Guess") -> tuple[str, tuple[str, ...]]:
    return f"It could also be the {second.class_name} ({percent(second.probability)}).", (second.class_name,)


def _next(answer: "Prediction", best: "Guess") -> tuple[str, tuple[str, ...]]:
    """After a likely top class: the next one, and the group of classes that is more probable."""
    if len(answer.class_names) == 1:
        return "The model has no other class.", ()
    second = answer.top(2)[1]
    other, names = f"the {second.class_name}", (second.class_name,)
    group = next((row for row in _groups(answer, best) if row[2] >= VERY), None)
    if group and best.probability < VERY and second.probability >= 0.02:
        state, _, probability = group
        return (
            f"{how_sure(probability)} of the {state} ({percent(probability)}); next comes {other} "
            f"({percent(second.probability)}).",
            names,
        )
    if second.probability >= 0.1:
        return _also(second)
    if second.probability >= 0.02:
        return f"Next comes {other} ({percent(second.probability)}).", names
    return f"No other class is close: {other} is next ({percent(second.probability)}).", names


def _body_or_next(answer: "Prediction", best: "Guess") -> tuple[str, tuple[str, ...]]:
    """After an unlikely top class: its body type, if that is likely, else the next class."""
    body, probability = next(iter(answer.bodies().items()))
    if probability >= LIKELY_GROUP and body and body == best.body:
        word = "SUV" if body == "SUV" else body.lower()
        return f"The body type is more likely: {article(body)} {word} ({percent(probability)}).", ()
    if len(answer.class_names) == 1:
        return "The model has no other class.", ()
    second = answer.top(2)[1]
    return f"The {second.class_name} comes next ({percent(second.probability)}).", (second.class_name,)
