"""An anchor-free car detector on the features of a network: a few convolutions, no second network.

For every cell of the features of stride 16 they predict a score, and the distances from the cell to the four sides of
the car's box (Tian et al., "FCOS", arXiv:1904.01355). The score is trained to be the IoU of that box where the cell is
near a car's center, and 0 elsewhere (the quality focal loss of Li et al., arXiv:2006.04388), so the best box of a car
is the one with the highest score. `fit_detector.py` trains them on scenes with pasted cars (`copy_paste.py`); the
network's own weights stay unchanged.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from rich.progress import track
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from torchvision.ops import box_iou, generalized_box_iou_loss, nms

from twincar.config import TwinCarError
from twincar.modeling.detection.boxes import Box, area
from twincar.modeling.networks.weights import save_tensors

HIDDEN_CHANNELS = 64
COMPONENTS = 256  # principal components of the features of a level that the detector is trained on
GROUPS = 8  # of the group normalization
DROPOUT = 0.4  # of whole channels of the features
PRIOR = 0.02  # initial score of every cell
CENTRAL = 0.35  # sides of the part of a box whose cells are trained to find it, as a fraction of the box's
BETA = 2  # exponent of the quality focal loss
NMS_IOU = 0.5  # of two boxes that overlap more, the one of the lower score is dropped
VOTING_SCORE = 0.05  # lowest score of a box that takes part in the mean
VOTING_IOU = 0.65  # boxes that overlap more with a found one are averaged with it
MAX_CARS = 10  # in a photo
FILE = "detector.safetensors"


class OutdatedDetectorError(TwinCarError):
    """A detector of the kind that earlier versions fitted. The message is one sentence."""


class Detection(NamedTuple):
    """A car that was found.

    Attributes:
        box: Its box.
        score: Estimated IoU (0-1) of the box and a car.
    """

    box: Box
    score: float


class Detector(nn.Module):
    """Predicts a score and a box for every cell of the features of half the stride.

    Args:
        finer_channels: Number of channels c of the features of half the stride.
        channels: Number of channels C of the features.

    Attributes:
        threshold: Score from which on a box counts as a car.
    """

    scales: Tensor
    threshold: Tensor

    def __init__(self, finer_channels: int, channels: int):
        super().__init__()
        # Root mean square of the features of the two levels; between networks it differs by orders of magnitude.
        self.register_buffer("scales", torch.ones(2))
        self.register_buffer("threshold", torch.tensor(0.5))
        self.dropout = nn.Dropout2d(DROPOUT)
        self.finer, self.coarser = (nn.Conv2d(count, HIDDEN_CHANNELS, 1) for count in (finer_channels, channels))
        layers: list[nn.Module] = [nn.GroupNorm(GROUPS, HIDDEN_CHANNELS), nn.GELU()]
        for dilation in (1, 2, 1):
            layers += [
                nn.Conv2d(HIDDEN_CHANNELS, HIDDEN_CHANNELS, 3, padding=dilation, dilation=dilation),
                nn.GroupNorm(GROUPS, HIDDEN_CHANNELS),
                nn.GELU(),
            ]
        self.layers = nn.Sequential(*layers)
        self.predict = nn.Conv2d(HIDDEN_CHANNELS, 5, 1)

    def forward(self, finer: Tensor, features: Tensor) -> Tensor:
        """(N, c, h, w) features of half the stride and (N, C, h / 2, w / 2) features -> (N, 5, h, w) detections.

        Channel 0 is the score (0-1), channels 1-4 are x1, y1, x2, y2 of the box.
        """
        score, boxes = self.logits(finer, features)
        return torch.cat([score.sigmoid()[:, None], boxes], 1)

    def logits(self, finer: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
        """The (N, h, w) logits of the scores, and the (N, 4, h, w) boxes."""
        rows, columns = finer.shape[2:]
        coarser = self.coarser(self.dropout(features / self.scales[1]))
        x = self.finer(self.dropout(finer / self.scales[0]))
        x = x + functional.interpolate(coarser, (rows, columns), mode="bilinear", align_corners=True)
        x = self.predict(self.layers(x))
        x1, y1, x2, y2 = x[:, 1:].sigmoid().unbind(1)  # distances, as fractions of the picture
        x_center, y_center = _centers(rows, columns, x.device)
        return x[:, 0], torch.stack([x_center - x1, y_center - y1, x_center + x2, y_center + y2], 1)

    def save(self, folder: str | Path) -> Path:
        """Write `detector.safetensors` into a model folder, in half precision, and return its path."""
        path = Path(folder) / FILE
        return save_tensors({key: value.half() for key, value in self.state_dict().items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> "Detector":
        """Read `detector.safetensors`.

        Raises:
            OutdatedDetectorError: It holds a detector of the kind that earlier versions fitted.
            TwinCarError: The file cannot be read or lacks a tensor.
        """
        try:
            state = {key: value.float() for key, value in load_file(path).items()}
            if {"scale", "locator.scale"} & state.keys():
                raise OutdatedDetectorError(
                    f"The detector in {path} was fitted by an earlier version and is not used: run `twincar "
                    "fit-detector` to fit a new one, which finds every car in a photo."
                )
            detector = cls(*(state[f"{level}.weight"].shape[1] for level in ("finer", "coarser")))
            detector.load_state_dict(state)
            return detector.eval().requires_grad_(False)
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise TwinCarError(
                f"{path} cannot be read: run `twincar fit-detector` again, or delete the file and the entry "
                f"`detector` of config.json to use the model without a detector ({error})."
            ) from error


def _centers(rows: int, columns: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Centers of the cells as fractions of the picture: their x, (1, columns), and their y, (rows, 1)."""
    x, y = ((torch.arange(count, device=device) + 0.5) / count for count in (columns, rows))
    return x[None, :], y[:, None]


def fit(
    levels: tuple[Tensor, Tensor],
    boxes: Sequence[np.ndarray],
    epochs: int = 16,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> Detector:
    """Train a detector.

    It is trained on the principal components of the features, which takes half the time, and a quarter of the memory;
    the projection then becomes part of its first layers.

    Args:
        levels: (N, c, h, w) and (N, C, h / 2, w / 2) features of N pictures, as of `Network.forward_intermediates`.
        boxes: Boxes of the cars of each picture: (n, 4), where n may be 0.
        epochs: Number of passes over the pictures.
        batch_size: Number of pictures in a step.
        seed: Random seed.
        progress: Whether to show a progress bar.
    """
    torch.manual_seed(seed)
    bases = [_principal_components(level) for level in levels]
    finer_level, level = (_project(each, basis) for each, basis in zip(levels, bases, strict=True))
    detector = Detector(finer_level.shape[1], level.shape[1]).train()
    detector.scales.copy_(torch.stack([each[:256].float().square().mean().sqrt() for each in (finer_level, level)]))
    detector.predict.bias = nn.Parameter(torch.tensor([float(np.log(PRIOR / (1 - PRIOR))), *[-1.0] * 4]))
    rows, columns = finer_level.shape[2:]
    truth = torch.stack([_targets(found, rows, columns) for found in boxes])
    optimizer = torch.optim.AdamW(detector.parameters(), weight_decay=0.1)
    steps = epochs * -(-len(truth) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.2)
    for _ in track(range(epochs), "Training the detector", disable=not progress):
        for batch in torch.randperm(len(truth)).split(batch_size):
            finer, features, target = finer_level[batch].float(), level[batch].float(), truth[batch]
            if torch.rand(()) < 0.5:
                finer, features, target = finer.flip(3), features.flip(3), _mirrored(target)
            loss = _loss(*detector.logits(finer, features), target)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(detector.parameters(), 5.0)
            optimizer.step()
            schedule.step()
    return _with_projection(detector, bases).eval().requires_grad_(False)


def _principal_components(level: Tensor, pictures: int = 200, cells: int = 8192) -> Tensor:
    """(C, D) directions in which (N, C, h, w) features have the largest mean square, D = COMPONENTS or less."""
    if level.shape[1] <= COMPONENTS:
        return torch.eye(level.shape[1])
    sample = level[torch.randperm(len(level))[:pictures]].float().permute(0, 2, 3, 1).flatten(0, 2)
    sample = sample[torch.randperm(len(sample))[:cells]]
    return torch.pca_lowrank(sample, min(COMPONENTS, *sample.shape), center=False)[2]


def _project(level: Tensor, basis: Tensor, batch_size: int = 32) -> Tensor:
    """(N, C, h, w) features in half precision -> (N, D, h, w)."""
    return torch.cat([torch.einsum("nchw,cd->ndhw", part.float(), basis).half() for part in level.split(batch_size)])


def _with_projection(detector: Detector, bases: list[Tensor]) -> Detector:
    """A detector on features that computes what the given one does on projected features."""
    state = detector.state_dict()
    for name, basis in zip(("finer", "coarser"), bases, strict=True):
        state[f"{name}.weight"] = torch.einsum("odhw,cd->ochw", state[f"{name}.weight"], basis)
    whole = Detector(*(len(basis) for basis in bases))
    whole.load_state_dict(state)
    return whole


def _targets(boxes: np.ndarray, rows: int, columns: int) -> Tensor:
    """(n, 4) boxes -> (4, rows, columns): the box that each cell is trained to predict, NaN for none.

    A cell near the centers of several boxes is trained on the one whose center is nearest, relative to its sides.
    """
    target, nearest = torch.full((4, rows, columns), torch.nan), torch.full((rows, columns), torch.inf)
    x, y = _centers(rows, columns)
    for box in torch.from_numpy(boxes).float():
        width, height = box[2] - box[0], box[3] - box[1]
        across, down = ((box[0] + box[2]) / 2 - x).abs(), ((box[1] + box[3]) / 2 - y).abs()
        distance = (across / width).square() + (down / height).square()
        # Also in a small box at least one cell is central.
        central = (across <= (CENTRAL * width).clamp(min=1 / columns) / 2) & (
            down <= (CENTRAL * height).clamp(min=1 / rows) / 2
        )
        central &= distance < nearest
        target[:, central], nearest[central] = box[:, None], distance[central]
    return target


def _mirrored(target: Tensor) -> Tensor:
    x1, y1, x2, y2 = target.flip(3).unbind(1)
    return torch.stack([1 - x2, y1, 1 - x1, y2], 1)


def _loss(score: Tensor, boxes: Tensor, target: Tensor) -> Tensor:
    """Quality focal loss of the scores, and GIoU loss of the boxes of the cells that have a target, per such cell."""
    positive = ~target[:, 0].isnan()
    found, expected = (each.permute(0, 2, 3, 1)[positive] for each in (boxes, target))
    count = max(len(found), 1)
    quality = torch.zeros_like(score)
    quality[positive] = box_iou(found.detach(), expected).diagonal()
    entropy = functional.binary_cross_entropy_with_logits(score, quality, reduction="none")
    focal = ((score.sigmoid() - quality).abs() ** BETA * entropy).sum()
    return (focal + generalized_box_iou_loss(found, expected, reduction="sum")) / count


def find_boxes(cells: np.ndarray, threshold: float, limit: int = MAX_CARS) -> list[Detection]:
    """Find the cars in one picture.

    Overlapping boxes are reduced to the one of the highest score (non-maximum suppression), which then becomes the mean
    of the boxes that largely agree with it, weighted by their scores (box voting, Gidaris and Komodakis,
    arXiv:1505.01749).

    Args:
        cells: (5, h, w) score and box of every cell, as of `Detector`.
        threshold: Score from which on a box counts.
        limit: Maximum number of boxes; those with the highest scores are kept.

    Returns:
        The cars, the largest first; an empty list for none.
    """
    scores, boxes = torch.from_numpy(cells[0]).flatten(), torch.from_numpy(cells[1:]).flatten(1).T.clamp(0, 1)
    kept = scores >= min(threshold, VOTING_SCORE)
    scores, boxes = scores[kept], boxes[kept]
    best = nms(boxes, scores, NMS_IOU)
    best = best[scores[best] >= threshold][:limit]
    agree = box_iou(boxes[best], boxes) > VOTING_IOU
    weights = agree * scores
    means = (weights @ boxes) / weights.sum(1, keepdim=True)
    apart = nms(means, scores[best], NMS_IOU)  # voting can move two boxes onto the same car
    found = [
        Detection(tuple(box), score)
        for box, score in zip(means[apart].tolist(), scores[best][apart].tolist(), strict=True)
    ]
    return sorted(found, key=lambda detection: area(detection.box), reverse=True)
