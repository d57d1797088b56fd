"""The decision about one photo: which detected boxes are cars, and which of these the model has as a class.

Everything that an answer states (`is_car`, `is_known`, `box`, `cars`) comes from `decide`, or from `decide_given` for a
box that was given by hand. Every score is that of one pass of the network over the car itself, cropped as in training:
the pass that also classifies it. Of the rules measured in `reports/decision.md` this one separates known from unknown
classes best; the maximum over the passes of the photo and of the car makes unknown cars look known.
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from twincar.modeling.detection.boxes import Box, intersection, iou
from twincar.modeling.open_set.open_set import OpenSet, Verdict

SAME_CAR = 0.5  # IoU from which on a given box shows a detected car
INSIDE = 0.8  # fraction of a detected car inside a given box from which on the box shows it


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
        The detected boxes that show a car, in the given order. Where there are none, one decision about the whole
        photo, with `box` None.
    """
    decisions = (Decision(box, read, judge(read)) for box, read in detected)
    cars = [decision for decision in decisions if decision.verdict.is_car is not False]
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
        if iou(box, car) >= SAME_CAR or intersection(box, car) >= INSIDE * max(intersection(car, car), 1e-12):
            verdict = verdict.or_better(before)
            break
    return Decision(box, read, verdict)
