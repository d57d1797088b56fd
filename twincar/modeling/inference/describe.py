"""A Prediction in plain sentences, for the page and the command line.

    describe(predictor("photo.jpg")).text   # "BMW M3 Coupe 2012, very sure (96 %). No other car comes close ..."

No sentence claims certainty.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from twincar import __version__

if TYPE_CHECKING:  # the command line imports this before it needs torch
    from twincar.modeling.inference.prediction import Guess, Prediction, SimilarClass

LIKELY = 0.5  # below this probability the top class is more likely wrong than right
LIKELY_GROUP = 0.8  # a make or model at least this probable is the answer where no class reaches LIKELY
VERY = 0.9
STATES = {  # of an answer, for programs -> what it amounts to
    "car": "one class",
    "model": "several classes of one model",
    "make": "several classes of one make",
    "unsure": "a known car, but no class or group of classes is likely",
    "unknown_car": "a car, but probably none of the model's classes",
    "no_car": "no car",
}
SHORT = {  # the same for people, in two words
    "car": "Identified",
    "model": "Model only",
    "make": "Make only",
    "unsure": "Not sure",
    "unknown_car": "Unknown model",
    "no_car": "No car",
}
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
        state: A key of STATES.
        lead: The answer, fit for a heading.
        label: The answer in a few words, for a frame or a table.
        first: The answer as a sentence.
        then: A second sentence, about the next class; may be "".
        names: The classes that `then` names.
        likely: For "model" and "make", the most probable class among them.
        sure: Confidence in the lead, in words; "" for "unknown_car" and "no_car", because the probabilities compare the
            model's classes only.
        probability: Probability (0-1) of the lead; None where `sure` is "".
    """

    state: str
    lead: str
    label: str
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
        return Description("no_car", lead, "No car", f"{lead}.", *_closest(best))
    if answer.is_known is False:
        known = len(answer.class_names)
        lead = f"A car, but maybe {f'none of the {known:,} known models' if known > 1 else 'not the known model'}"
        return Description("unknown_car", lead, "Unknown model", f"{lead}.", *_closest(best))
    if best.probability >= LIKELY:
        sure = how_sure(best.probability)
        first = f"{best.class_name}, {sure.lower()} ({percent(best.probability)})."
        return Description(
            "car", best.class_name, best.class_name, first, *_next(answer, best),
            sure=sure, probability=best.probability,
        )  # fmt: skip
    for state, name, probability in _groups(answer, best):
        if probability >= LIKELY_GROUP:
            lead = f"{article(name).capitalize()} {name}"
            rest = best.class_name.removeprefix(name).strip() or best.class_name
            likely = (
                f"most likely {'that of' if rest == str(best.year) else 'the'} {rest} ({percent(best.probability)})"
            )
            first, sure = f"{lead} ({percent(probability)}), {likely}.", f"{how_sure(probability)} of the {state}"
            return Description(
                state, lead, name, first, *_also(answer.top(2)[1]), likely=likely, sure=sure, probability=probability
            )
    first = f"Not sure: the closest match is the {best.class_name} ({percent(best.probability)})."
    return Description(
        "unsure", best.class_name, "Not sure", first, *_body_or_next(answer, best),
        sure=how_sure(0), probability=best.probability,
    )  # fmt: skip


def as_dict(answer: "Prediction", k: int = 5) -> dict[str, Any]:
    """An answer for programs, ready for JSON. The command line, the page and the API all return this one.

    `is_car` and `is_known` are None from a model without open-set data, `box` is None where the whole photo was read.
    Boxes are in pixels of the upright photo at its full size.

    Args:
        answer: What to describe.
        k: Number of classes under `top`.

    Returns:
        For the largest car: `said` (the sentences), `state` (a key of STATES), `top` (the k most probable classes),
        `makes` (the three most probable makes), `is_car`, `is_known`, `box` and `others` (boxes of the other cars).
        For every car, largest first, `cars`: a list of `box`, `top`, `makes`, `is_known`, `state` and `said`; empty
        where there is no car. `model` (`name` and `version`), and `version`, that of this package.
    """
    first = _car(answer, k)
    return {
        "said": f"{first['said']} {more_cars(len(answer.cars) - 1)}".strip(),
        "state": first["state"],
        "top": first["top"],
        "makes": first["makes"],
        "is_car": answer.is_car,
        "is_known": first["is_known"],
        "box": first["box"],
        "others": [answer.in_full(box) for box in answer.others],
        "cars": [first if car is answer else _car(car, k) for car in answer.cars],
        "model": answer.model,
        "version": __version__,
    }


def _car(answer: "Prediction", k: int) -> dict[str, Any]:
    """One entry of `cars`."""
    described = describe(answer)
    return {
        "box": answer.in_full(answer.box),
        "top": [guess.as_dict() for guess in answer.top(k)],
        "makes": [{"make": make, "probability": sure} for make, sure in list(answer.makes().items())[:3]],
        "is_known": answer.is_known,
        "state": described.state,
        "said": described.text,
    }


def more_cars(others: int) -> str:
    """A sentence about the number of cars in the photo; "" where there are no others."""
    return f"This answer is for the largest of {others + 1} cars." if others > 0 else ""


def confused_classes(answer: "Prediction") -> list["SimilarClass"]:
    """Similar classes that were confused with the top class in validation, at least twice: one mistake is no pattern.

    Empty unless the answer is a known car.
    """
    if answer.is_car is False or answer.is_known is False:
        return []
    return [similar for similar in answer.similar_classes() if similar.confusions >= 2]


def how_often(similar: "SimilarClass") -> str:
    """The number of confusions of a similar class, in words."""
    times = {1: "once", 2: "twice"}.get(similar.confusions, f"{similar.confusions:,} times")
    return f"confused {times} in validation"


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
    return f"The closest match would be the {best.class_name}.", (best.class_name,)


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
            f"{how_sure(probability)} of the {state} ({percent(probability)}); the runner-up is {other} "
            f"({percent(second.probability)}).",
            names,
        )
    if second.probability >= 0.1:
        return _also(second)
    if second.probability >= 0.02:
        return f"The runner-up is {other} ({percent(second.probability)}).", names
    return f"No other car comes close (next: {second.class_name}, {percent(second.probability)}).", names


def _body_or_next(answer: "Prediction", best: "Guess") -> tuple[str, tuple[str, ...]]:
    """After an unlikely top class: its body type, if that is likely, else the next class."""
    body, probability = next(iter(answer.bodies().items()))
    if probability >= LIKELY_GROUP and body and body == best.body:
        word = "SUV" if body == "SUV" else body.lower()
        return f"The body type is more likely: {article(body)} {word} ({percent(probability)}).", ()
    if len(answer.class_names) == 1:
        return "The model has no other class.", ()
    second = answer.top(2)[1]
    return f"The runner-up is the {second.class_name} ({percent(second.probability)}).", (second.class_name,)
