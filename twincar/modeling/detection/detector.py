"""A car detector on the features of a network: a few small layers, no second network.

They predict for every cell of the features the fraction of it that cars cover. `fit_detector.py` trains them on scenes
with pasted cars (`copy_paste.py`); the network's own weights stay unchanged. A box is then fitted to this coverage in
least squares. Its edges can fall inside a cell, since a partly covered cell has a coverage below 1.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from twincar.config import TwinCarError
from twincar.modeling.detection.boxes import Box, area, iou
from twincar.modeling.networks.weights import save_tensors

HIDDEN_CHANNELS = 64
COARSE_STEPS = 2  # candidate positions of an edge in a cell, in the first search
FINE_STEPS = 4  # positions between two of those, in the second search
MIN_SIDE = 0.1  # shortest side of a box, as a fraction of the photo's
MIN_COVERAGE = 0.5  # lowest mean coverage inside a box
NMS_IOU = 0.3  # boxes that overlap more belong to one car
FILE = "detector.safetensors"


class Detector(nn.Module):
    """Predicts the coverage of each cell: (N, C, h, w) features -> (N, h, w) logits.

    Their sigmoid is the fraction of the cell that cars cover; `find_boxes` turns it into boxes.

    Args:
        channels: Number of channels C of the features.
    """

    scale: Tensor

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer(
            "scale", torch.ones(())
        )  # mean square of the features; between networks it differs by orders of magnitude
        self.layers = nn.Sequential(
            nn.Dropout2d(0.3),
            nn.Conv2d(channels, HIDDEN_CHANNELS, 1),
            nn.GELU(),
            nn.Conv2d(HIDDEN_CHANNELS, HIDDEN_CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(HIDDEN_CHANNELS, HIDDEN_CHANNELS, 3, padding=1),
            nn.GELU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(HIDDEN_CHANNELS, 1, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) features -> (N, h, w) logits of the coverage."""
        return self.layers(features / self.scale.sqrt())[:, 0]

    def save(self, folder: str | Path) -> Path:
        """Write `detector.safetensors` into a model folder, in half precision, and return its path."""
        path = Path(folder) / FILE
        return save_tensors({key: value.half() for key, value in self.state_dict().items()}, path)

    @classmethod
    def load(cls, path: str | Path) -> "Detector":
        """Read `detector.safetensors`.

        Raises:
            TwinCarError: The file cannot be read or lacks a tensor.
        """
        try:
            tensors = load_file(path)
            # Before 0.2.0 it was in one file with the open-set data.
            prefix = "locator." if "locator.scale" in tensors else ""
            state = {
                key.removeprefix(prefix): value.float() for key, value in tensors.items() if key.startswith(prefix)
            }
            detector = cls(state["layers.1.weight"].shape[1])
            detector.load_state_dict(state)
            return detector.eval().requires_grad_(False)
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise TwinCarError(
                f"{path} cannot be read: run `twincar fit-detector` again, or delete the file and the entry "
                f"`detector` of config.json to use the model without a detector ({error})."
            ) from error


def fit(features: Tensor, boxes: np.ndarray, epochs: int = 24, batch_size: int = 64, seed: int = 0) -> Detector:
    """Train a detector.

    Args:
        features: (N, C, h, w) features of N pictures with one car each.
        boxes: (N, 4) box of each car, as of `Box`.
        epochs: Number of passes over the pictures.
        batch_size: Number of pictures in a step.
        seed: Random seed.
    """
    torch.manual_seed(seed)
    rows, columns = features.shape[2:]
    target = torch.from_numpy(box_coverage(boxes, rows, columns)).float()
    detector = Detector(features.shape[1]).train()
    detector.scale.copy_(features.float().square().mean())
    optimizer = torch.optim.AdamW(detector.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(features) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(features)).split(batch_size):
            x, y = features[batch].float(), target[batch]
            if torch.rand(()) < 0.5:
                x, y = x.flip(3), y.flip(2)
            loss = functional.binary_cross_entropy_with_logits(detector(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return detector.eval().requires_grad_(False)


def find_boxes(coverage: np.ndarray, limit: int = 4) -> list[Box]:
    """Find the boxes of the cars in one picture, one after the other.

    Args:
        coverage: (h, w) fraction (0-1) of each cell that cars cover.
        limit: Maximum number of boxes.

    Returns:
        Their boxes, the largest first; an empty list for none.
    """
    left = coverage
    found: list[Box] = []
    for _ in range(limit):
        if left.max() < MIN_COVERAGE:  # no box can have a higher mean
            break
        box = fit_box(left)
        covered = box_coverage(np.array([box]), *left.shape)[0]
        if float((left * covered).sum() / covered.sum()) < MIN_COVERAGE:
            break
        if all(iou(box, other) < NMS_IOU for other in found):
            found.append(box)
        left = left * (1 - covered)
    return sorted(found, key=area, reverse=True)


def box_coverage(boxes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(N, 4) boxes -> (N, rows, columns) fraction (0-1) of each cell that each box covers."""
    x, y = _interval_coverage(boxes[:, 0], boxes[:, 2], columns), _interval_coverage(boxes[:, 1], boxes[:, 3], rows)
    return y[:, :, None] * x[:, None, :]


def fit_box(coverage: np.ndarray) -> Box:
    """The box whose own coverage is closest to (h, w) `coverage` in least squares.

    First among all boxes with edges on a grid of half cells, then among those with edges up to half a cell away.
    """
    rows, columns = coverage.shape
    box = _closest(coverage, _coarse_intervals(columns), _coarse_intervals(rows))
    return _closest(coverage, _fine_intervals(box[0], box[2], columns), _fine_intervals(box[1], box[3], rows))


class _Intervals(NamedTuple):
    """Candidate intervals along one axis.

    Attributes:
        ends: (N, 2) start and end, in 0-1.
        covered: (N, cells) fraction of each cell that they cover.
        squares: (N,) sums of the squares of `covered`.
    """

    ends: np.ndarray
    covered: np.ndarray
    squares: np.ndarray


def _closest(coverage: np.ndarray, across: _Intervals, down: _Intervals) -> Box:
    """The box of one interval in x and one in y whose coverage is closest."""
    # |c - coverage|^2 = |c|^2 - 2 c.coverage + constant, with c the outer product of an interval down and one across.
    distance = np.outer(down.squares, across.squares) - 2 * down.covered @ coverage @ across.covered.T
    row, column = np.unravel_index(distance.argmin(), distance.shape)
    (x1, x2), (y1, y2) = across.ends[column], down.ends[row]
    return float(x1), float(y1), float(x2), float(y2)


@lru_cache(maxsize=8)
def _coarse_intervals(cells: int) -> _Intervals:
    """All intervals with ends on a grid of COARSE_STEPS a cell."""
    grid = np.arange(cells * COARSE_STEPS + 1) / (cells * COARSE_STEPS)
    return _intervals(grid, grid, cells)


@lru_cache(maxsize=1024)  # 7 cells have 91 coarse intervals
def _fine_intervals(start: float, end: float, cells: int) -> _Intervals:
    """Intervals with ends up to one coarse step away from `start` and `end`, in FINE_STEPS to either side."""
    offsets = np.linspace(-1, 1, 2 * FINE_STEPS + 1) / (cells * COARSE_STEPS)
    return _intervals((start + offsets).clip(0, 1), (end + offsets).clip(0, 1), cells)


def _intervals(starts: np.ndarray, ends: np.ndarray, cells: int) -> _Intervals:
    """All intervals from one of the starts to one of the ends that are at least MIN_SIDE long."""
    pairs = np.stack(np.meshgrid(starts, ends, indexing="ij"), -1).reshape(-1, 2)
    pairs = pairs[pairs[:, 1] - pairs[:, 0] >= MIN_SIDE - 1e-9]
    covered = _interval_coverage(pairs[:, 0], pairs[:, 1], cells)
    return _Intervals(pairs, covered, (covered**2).sum(1))


def _interval_coverage(start: np.ndarray, end: np.ndarray, cells: int) -> np.ndarray:
    """(N,) starts and ends in 0-1 -> (N, cells) fraction of each of `cells` equal parts of 0-1 that is covered."""
    edges = np.arange(cells + 1) / cells
    length = np.minimum(end[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1])
    return length.clip(0) * cells
