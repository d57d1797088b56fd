"""Trunk: what an engine runs (`engine.py`). Pictures -> features, and which share of each of their cells a car covers.

A network's own trunk, with the normalisation of its pictures in front, so that bytes and not floats cross to a GPU or
into OpenVINO; and behind it the locator (`locate.py`) of a model that was taught where cars are.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from twincar.features import normalise


class Seen(NamedTuple):
    """Float32 features (N, C, h, w); and, where there is a locator, the share of each cell that a car covers, (N, h, w)
    in 0-1."""

    features: Tensor
    coverage: Tensor | None = None

    def split(self, counts: list[int]) -> "list[Seen]":
        """What was seen in the first so many pictures, in the next so many, and so on."""
        parts = zip(*(told.split(counts) for told in self if told is not None), strict=True)
        return [Seen(*part) for part in parts]


class Trunk(nn.Module):
    """(N, size, size, 3) uint8 pictures -> what `Seen` holds, as a plain tuple.

    network : any under the contract of `architectures.py`. mean, std : of its pictures, in 0-1, a number a channel.
    locator : of `locate.py`; it computes in float32, whatever the network computes in.
    """

    def __init__(self, network: nn.Module, mean, std, locator: nn.Module | None = None):
        super().__init__()
        self.network, self.locator = network, locator
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        precision = next(self.network.parameters()).dtype
        images = normalise(pictures.permute(0, 3, 1, 2), self.mean, self.std).to(precision)
        features = self.network.forward_features(images).float()
        return (features,) if self.locator is None else (features, self.locator(features).sigmoid())
