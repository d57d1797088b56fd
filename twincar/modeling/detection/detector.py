"""Where in a photo is the car? From the features of a look at all of it: a few small layers, no second network.

They tell of every cell of the features which share of it a car covers. `learn.py` trains them on pictures of cars laid
on other photos (`compose.py`); the network below stays as it is. A box is then the one whose own coverage of the cells
comes nearest to what was told, in least squares: its edges fall between cells, since a half-covered cell says so.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from twincar.config import TwinCarError
from twincar.files import atomic_write
from twincar.modeling.detection.boxes import Box, area, iou

WIDTH = 64
COARSE, FINE = 2, 4  # places for an edge in a cell at first, and steps between two of them afterwards
SMALLEST = 0.1  # least side of a box, as a share of the photo's
DENSE = 0.5  # least mean coverage of a box that is taken for a car
ALIKE = 0.3  # boxes that overlap more (IoU) are one car
FILE = "detector.safetensors"


class Detector(nn.Module):
    """Features (N, C, h, w) -> for every cell the log-odds that a point in it lies on a car, (N, h, w).

    Their sigmoid is the share of the cell that cars cover, of which `boxes_in` makes boxes.
    """

    def __init__(self, channels: int):
        super().__init__()
        self.register_buffer("scale", torch.ones(()))  # mean square of a feature: backbones differ by orders
        self.layers = nn.Sequential(
            nn.Dropout2d(0.3),
            nn.Conv2d(channels, WIDTH, 1),
            nn.GELU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.GELU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.GELU(),
            nn.Dropout2d(0.1),
            nn.Conv2d(WIDTH, 1, 1),
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.layers(features / self.scale.sqrt())[:, 0]

    def save(self, folder: str | Path) -> Path:
        """Write `detector.safetensors` into a model folder, in half precision, and return its path."""
        path = Path(folder) / FILE
        with atomic_write(path) as temporary:
            save_file({key: value.half().contiguous() for key, value in self.state_dict().items()}, temporary)
            temporary.chmod(0o644)  # safetensors writes for its owner alone; a server may run as somebody else
        return path

    @classmethod
    def load(cls, path: str | Path) -> "Detector":
        """Read `detector.safetensors`.

        Raises:
            TwinCarError: The file cannot be read or lacks a tensor.
        """
        try:
            tensors = load_file(path)
            prefix = (
                "locator." if "locator.scale" in tensors else ""
            )  # before 0.2.0, in one file with the open-set data
            return cls.from_state(
                {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
            )
        except (SafetensorError, OSError, KeyError, RuntimeError) as error:
            raise TwinCarError(
                f"{path} cannot be read: run `twincar fit-detector` again, or delete the file and the entry "
                f"`detector` of config.json to do without ({error})."
            ) from error

    @classmethod
    def from_state(cls, state: dict[str, Tensor]) -> "Detector":
        """A detector with the weights of a state dict, ready to run: in eval mode, without gradients."""
        detector = cls(state["layers.1.weight"].shape[1])
        detector.load_state_dict({key: value.float() for key, value in state.items()})
        return detector.eval().requires_grad_(False)


def fit(features: Tensor, boxes: np.ndarray, epochs: int = 24, batch_size: int = 64, seed: int = 0) -> Detector:
    """Train a Locator on (N, C, h, w) features of pictures whose cars lie in `boxes`, (N, 4) as of `Box`."""
    torch.manual_seed(seed)
    truth = torch.from_numpy(cover(boxes, *features.shape[2:])).float()
    detector = Detector(features.shape[1]).train()
    detector.scale.copy_(features.float().square().mean())
    optimizer = torch.optim.AdamW(detector.parameters(), weight_decay=0.05)
    steps = epochs * -(-len(features) // batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(features)).split(batch_size):
            x, y = features[batch].float(), truth[batch]
            if torch.rand(()) < 0.5:
                x, y = x.flip(3), y.flip(2)
            loss = functional.binary_cross_entropy_with_logits(detector(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return detector.eval().requires_grad_(False)


def find_boxes(coverage: np.ndarray, limit: int = 4) -> list[Box]:
    """The cars in one picture, whose cells they cover by the (h, w) shares in 0-1, the largest first; [] for none."""
    left, found = coverage, []
    for _ in range(limit):
        if left.max() < DENSE:  # no box can be denser
            break
        box = nearest_box(left)
        covered = cover(np.array([box]), *left.shape)[0]
        if float((left * covered).sum() / covered.sum()) < DENSE:
            break
        if all(iou(box, other) < ALIKE for other in found):
            found.append(box)
        left = left * (1 - covered)
    return sorted(found, key=area, reverse=True)


def cover(boxes: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Which share of each cell every box covers: (N, 4) boxes -> (N, rows, columns) in 0-1."""
    x, y = _along(boxes[:, 0], boxes[:, 2], columns), _along(boxes[:, 1], boxes[:, 3], rows)
    return y[:, :, None] * x[:, None, :]


def nearest_box(coverage: np.ndarray) -> Box:
    """The box whose coverage of the cells is nearest to (h, w) `coverage`, in squares.

    Of all boxes with edges at every half of a cell, and then of all whose edges lie within half a cell of its own.
    """
    rows, columns = coverage.shape
    box = _nearest(coverage, _segments(columns), _segments(rows))
    return _nearest(coverage, _refined_segments(box[0], box[2], columns), _refined_segments(box[1], box[3], rows))


class _Segments(NamedTuple):
    """(N, 2) segments of 0-1, which share of each cell they cover, (N, cells), and the sums of its squares, (N,)."""

    ends: np.ndarray
    covered: np.ndarray
    squares: np.ndarray


def _nearest(coverage: np.ndarray, across: _Segments, down: _Segments) -> Box:
    # |cover - told|^2 = |cover|^2 - 2 cover.told + constant, for all pairs of a segment down and one across at once.
    distance = np.outer(down.squares, across.squares) - 2 * down.covered @ coverage @ across.covered.T
    row, column = np.unravel_index(distance.argmin(), distance.shape)
    (x1, x2), (y1, y2) = across.ends[column], down.ends[row]
    return float(x1), float(y1), float(x2), float(y2)


@lru_cache(maxsize=8)
def _segments(cells: int) -> _Segments:
    """All segments with ends at the COARSE-th parts of a cell."""
    places = np.arange(cells * COARSE + 1) / (cells * COARSE)
    return _between(places, places, cells)


@lru_cache(maxsize=1024)  # of 7 cells there are 91 segments
def _refined_segments(start: float, end: float, cells: int) -> _Segments:
    """Segments with ends up to one step of `_segments` away, in FINE steps to either side."""
    places = np.linspace(-1, 1, 2 * FINE + 1) / (cells * COARSE)
    return _between((start + places).clip(0, 1), (end + places).clip(0, 1), cells)


def _between(starts: np.ndarray, ends: np.ndarray, cells: int) -> _Segments:
    """All segments from one of the starts to one of the ends, but those that are too short."""
    pairs = np.stack(np.meshgrid(starts, ends, indexing="ij"), -1).reshape(-1, 2)
    pairs = pairs[pairs[:, 1] - pairs[:, 0] >= SMALLEST - 1e-9]
    covered = _along(*pairs.T, cells)
    return _Segments(pairs, covered, (covered**2).sum(1))


def _along(start: np.ndarray, end: np.ndarray, cells: int) -> np.ndarray:
    """Which share of each of `cells` equal parts of 0-1 the segments from start to end cover: (N, cells)."""
    edges = np.arange(cells + 1) / cells
    length = np.minimum(end[:, None], edges[1:]) - np.maximum(start[:, None], edges[:-1])
    return length.clip(0) * cells
