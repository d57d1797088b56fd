"""What a Prediction says, in plain sentences. The page and the command line both tell it in these words.

describe(predictor("photo.jpg")).text     # "BMW M3 Coupe 2012, very sure (96 %). Nothing else comes near: ..."

In them "I" is the model and "it" is the car. No state calls itself certain.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # the command line imports this before it needs torch
    from twincar.modeling.inference.prediction import Guess, Prediction, SimilarClass

MAYBE = 0.5  # below this the first guess is more likely wrong than right, by the model's own account
SHARED = 0.8  # from here on what several classes share is said where none of them reaches MAYBE
VERY = 0.9
SURE = (  # from this probability on -> the words
    (VERY, "Very sure"),
    (0.7, "Fairly sure"),
    (MAYBE, "More likely than not"),
    (0.0, "Not sure"),
)


@dataclass(frozen=True)
class Description:
    """An answer in words.

    state : "car", one class is meant; "model" or "make", several that share it; "unsure", none of these; "unknown", a
        car but perhaps none of the model's; "none", no car.
    lead : what it is, fit for a heading. likely : of a model or make, what it most likely is more closely.
    sure, share : how sure of the lead, in words and in 0-1; "" and None where the probabilities, which compare known
        cars only, say nothing about it.
    first, then : one sentence each; `then` may be "". names : the classes that `then` names.
    """

    state: str
    lead: str
    first: str
    then: str = ""
    names: tuple[str, ...] = ()
    likely: str = ""
    sure: str = ""
    share: float | None = None

    @property
    def text(self) -> str:
        return f"{self.first} {self.then}".strip()


def describe(answer: "Prediction", where: str = "this photo") -> Description:
    """Put an answer into one or two sentences. `where` is what was looked at, should that be less than the photo."""
    best = answer.top(1)[0]
    if answer.is_car is False:
        lead = f"I see no car in {where}"
        return Description(
            "none", lead, f"{lead}.", f"What comes nearest is the {best.class_name}.", (best.class_name,)
        )
    if answer.is_known is False:
        lead = "A car, but perhaps none that I know"
        return Description(
            "unknown", lead, f"{lead}.", f"It looks most like the {best.class_name}.", (best.class_name,)
        )
    if best.probability >= MAYBE:
        sure = how_sure(best.probability)
        first = f"{best.class_name}, {sure.lower()} ({percent(best.probability)})."
        return Description("car", best.class_name, first, *_rival(answer, best), sure=sure, share=best.probability)
    for state, name, share in _wider(answer, best):
        if share >= SHARED:
            lead = f"A{article(name)[1:]} {name}"
            rest = best.class_name.removeprefix(name).strip() or best.class_name
            likely = (
                f"most likely {'that of' if rest == str(best.year) else 'the'} {rest} ({percent(best.probability)})"
            )
            first, sure = f"{lead} ({percent(share)}), {likely}.", f"{how_sure(share)} of the {state}"
            return Description(state, lead, first, *_also(answer), likely=likely, sure=sure, share=share)
    first = f"I am not sure: it looks most like the {best.class_name} ({percent(best.probability)})."
    return Description(
        "unsure", best.class_name, first, *_surer(answer, best), sure=how_sure(0), share=best.probability
    )


def as_dict(answer: "Prediction", k: int = 5) -> dict[str, Any]:
    """An answer for programs, ready for JSON: in words, the k nearest, the three likeliest makes, and where the car is,
    if any.

    `is_car`, `is_known` and `box` are None from a model without knowledge of that; boxes are in pixels of the upright
    photo at its full size.
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
    """That there are more cars in the photo; "" where there are none."""
    return f"I took the largest of {others + 1} cars." if others else ""


def confused_classes(answer: "Prediction") -> list["SimilarClass"]:
    """Look-alikes that were taken for the answer, or it for them; [] where the model sees none of its cars."""
    if answer.is_car is False or answer.is_known is False:
        return []
    return [similar for similar in answer.similar_classes() if similar.confusions]


def how_often(similar: "SimilarClass") -> str:
    pictures = "picture of the two was" if similar.confusions == 1 else "pictures of the two were"
    return f"{similar.confusions} {pictures} mixed up when I was checked"


def how_sure(probability: float) -> str:
    return next(words for least, words in SURE if probability >= least)


def percent(probability: float) -> str:
    """For people: nothing is certain, and nothing on the list is impossible."""
    words = "over 99" if probability >= 0.995 else "under 1" if probability < 0.005 else f"{100 * probability:.0f}"
    return f"{words}\N{NO-BREAK SPACE}%"


def article(name: str) -> str:
    return "an" if name[:1] in "AEIOUaeiou" else "a"


def _wider(answer: "Prediction", best: "Guess") -> Iterator[tuple[str, str, float]]:
    """What the first guess shares with other classes, and their sum, the narrowest first: the model and body whatever
    the year, the model whatever the body, the make."""
    name = best.class_name.removesuffix(str(best.year or "")).strip()
    yield "model", name, answer.models()[name]
    if best.model:
        family = (guess for guess in answer.top(len(answer.class_names)) if _model(guess) == _model(best))
        yield "model", f"{best.make} {best.model}", sum(guess.probability for guess in family)
    yield "make", best.make, answer.makes()[best.make]


def _model(guess: "Guess") -> tuple[str, str]:
    return guess.make, guess.model


def _rival(answer: "Prediction", best: "Guess") -> tuple[str, tuple[str, ...]]:
    """After a first guess that is more likely right than wrong: what else it could be, and what is surer than that."""
    rest = answer.top(2)[1:]
    if not rest:
        return "I know no other car.", ()
    second = rest[0]
    other, names = f"the {second.class_name}", (second.class_name,)
    surer = next((row for row in _wider(answer, best) if row[2] >= VERY), None)
    if surer and best.probability < VERY and second.probability >= 0.02:
        state, _, share = surer
        return (
            f"Of the {state} I am {how_sure(share).lower()} ({percent(share)}); next comes {other} "
            f"({percent(second.probability)}).",
            names,
        )
    if second.probability >= 0.1:
        return f"It could also be {other} ({percent(second.probability)}).", names
    if second.probability >= 0.02:
        return f"Next comes {other} ({percent(second.probability)}).", names
    return f"Nothing else comes near; {other} is next ({percent(second.probability)}).", names


def _also(answer: "Prediction") -> tuple[str, tuple[str, ...]]:
    second = answer.top(2)[1]
    return f"It could also be the {second.class_name} ({percent(second.probability)}).", (second.class_name,)


def _surer(answer: "Prediction", best: "Guess") -> tuple[str, tuple[str, ...]]:
    """After a first guess that is more likely wrong than right: the body, if that is surer, else what comes next."""
    body, share = next(iter(answer.bodies().items()))
    if share >= SHARED and body and body == best.body:
        word = "SUV" if body == "SUV" else body.lower()
        return f"I am surer that it is {article(body)} {word} ({percent(share)}).", ()
    rest = answer.top(2)[1:]
    if not rest:
        return "I know no other car.", ()
    return f"The {rest[0].class_name} comes next ({percent(rest[0].probability)}).", (rest[0].class_name,)
