"""A Predictor with fixed detections and thresholds, for tests. Its weights are random."""

import torch

from tests.conftest import CLASSES
from twincar import Predictor
from twincar.modeling.detection.detector import Detector
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.open_set.open_set import OpenSet, Threshold


class FixedDetector(Detector):
    """Finds given boxes with a score of 1, whatever the features; each in a cell of its own."""

    def __init__(self, *boxes):
        super().__init__(1, 1)
        self.boxes = boxes

    def forward(self, finer, features):
        cells = torch.zeros(5, finer.shape[2] * finer.shape[3])
        for index, box in enumerate(self.boxes):
            cells[:, index] = torch.tensor([1.0, *box])
        return cells.unflatten(1, finer.shape[2:]).expand(len(finer), -1, -1, -1)


def fake_predictor(*boxes, is_car=-1e9, is_known=-1e9) -> Predictor:
    """A Predictor that detects `boxes`; `is_car` and `is_known` are its thresholds."""
    torch.manual_seed(0)
    config = {"architecture": {"name": "resnet18"}, "class_names": CLASSES, "input": {"size": 256}}
    model = CarModel(config)
    count, width = len(CLASSES), model.network.width
    model.detector = FixedDetector(*boxes)
    model.open_set = OpenSet(
        torch.zeros(width),
        0.0,
        torch.randn(count, width),
        torch.zeros(count, count, dtype=torch.int),
        Threshold(is_car, 0.05),
        Threshold(is_known, 0.05),
    )
    return Predictor(model, "cpu")
