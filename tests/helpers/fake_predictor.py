"""A Predictor with fixed detections and thresholds, for tests. Its weights are random."""

import numpy as np
import torch

from tests.conftest import CLASSES
from twincar import Predictor
from twincar.modeling.detection.detector import Detector, box_coverage
from twincar.modeling.hub.model_folder import CarModel
from twincar.modeling.open_set.open_set import OpenSet, Threshold


class FixedDetector(Detector):
    """Predicts the coverage of given boxes, whatever the features."""

    def __init__(self, *boxes):
        super().__init__(1)
        self.boxes = boxes

    def forward(self, features):
        rows, columns = features.shape[2:]
        covered = box_coverage(np.array(self.boxes), rows, columns).sum(0) if self.boxes else np.zeros((rows, columns))
        return torch.from_numpy(covered).float().logit(eps=1e-6).expand(len(features), -1, -1)


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
