"""The decision about one photo: which detected boxes are cars, and which of these the model has as a class.

Everything that an answer states (`is_car`, `is_known`, `box`, `cars`) comes from `decide`, or from `decide_given` for a
box that was given by hand. Every score is that of one pass of the network over the car itself, cropped as in training:
the pass that also classifies it. Of the rules measured in `reports/decision.md` this one separates known from unknown
classes best; the maximum over the passes of the photo and of the car makes unknown cars look known.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from twincar.modeling.detection.boxes import Box, area, intersection, iou
from twincar.modeling.open_set.open_set import OpenSet, Verdict

SAME_CAR = 0.5  # IoU from which on a given box shows a detected car
INSIDE = 0.8  # fraction of a detected car inside another box from which on this one may show it as well


class Pass(NamedTuple):
    """What the network returned for one part of a photo.

    Attributes:
        features: (C, h, w) features.
        logits: (K,) logits before calibration.
        part: The part of the photo that was read.
    """

    features: Tensor
    logits: Tensor
    part: Box


class Decision(NamedTuple):
    """One car, or a photo without one.

    Attributes:
        box: The car; None where the whole photo was read.
        read: The pass that classifies it.
        verdict: Whether it is a car, and one of the model's classes.
    """

    box: Box | None
    read: Pass
    verdict: Verdict


class Judge(NamedTuple):
    """Computes the verdict about a pass.

    Attributes:
        open_set: Open-set data of the model, if it has any.
        temperature: Of the model's calibration.
    """

    open_set: OpenSet | None
    temperature: float

    def __call__(self, read: Pass) -> Verdict:
        """The verdict; without open-set data, `is_car` and `is_known` are None."""
        return self.open_set.judge(read.features, read.logits, self.temperature) if self.open_set else Verdict()


def decide(whole: Pass, detected: Sequence[tuple[Box, Pass]], judge: Judge) -> list[Decision]:
    """Decide which cars a photo shows.

    Args:
        whole: The pass over the whole photo.
        detected: The boxes of the detector, largest first, each with the pass over this part of the photo.
        judge: Computes the verdicts.

    Returns:
        The detected boxes that show a car, in the given order, each car once. Where there are none, one decision about
        the whole photo, with `box` None.
    """
    cars: list[Decision] = []
    for box, read in detected:
        verdict = judge(read)
        if verdict.is_car is not False and not any(_shows_part_of(car, box, read) for car in cars):
            cars.append(Decision(box, read, verdict))
    return cars or [Decision(None, whole, judge(whole))]


def decide_given(read: Pass, box: Box, found: Sequence[tuple[Box, Verdict]], judge: Judge) -> Decision:
    """Decide about a box that was given by hand.

    A car that was found before in the same photo stays a car, and a known one stays known, however loosely the box
    frames it.

    Args:
        read: The pass over the box.
        box: The given box.
        found: Boxes and verdicts of the cars that were found in the photo, largest first.
        judge: Computes the verdict of the pass.
    """
    verdict = judge(read)
    for car, before in found:
        if iou(box, car) >= SAME_CAR or _is_inside(car, box):
            verdict = verdict.or_better(before)
            break
    return Decision(box, read, verdict)


def _shows_part_of(car: Decision, box: Box, read: Pass) -> bool:
    """Whether a box lies inside that of a larger car and has the same class: a second box on the same car.

    A car that stands before another lies inside its box as well, but is rarely of the same class.
    """
    return car.box is not None and _is_inside(box, car.box) and bool(read.logits.argmax() == car.read.logits.argmax())


def _is_inside(box: Box, other: Box) -> bool:
    return intersection(box, other) >= INSIDE * max(area(box), 1e-12)
