"""The part of a network that an engine runs: bytes -> features and detections.

The network's backbone with the normalization in front, so that bytes rather than floats are sent to a GPU or to
OpenVINO, and the model's detector, if any, behind it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from twincar.features.transforms import normalize
from twincar.modeling.networks.architectures import Network


class BackboneOutput(NamedTuple):
    """Output for N pictures.

    Attributes:
        features: (N, C, h, w) float32.
        detections: (N, 5, 2h, 2w) score (0-1) and box of every cell, for `find_boxes`; None without a detector.
    """

    features: Tensor
    detections: Tensor | None = None

    def split(self, counts: list[int]) -> "list[BackboneOutput]":
        """Split along N into parts of the given lengths."""
        parts = zip(*(tensor.split(counts) for tensor in self if tensor is not None), strict=True)
        return [BackboneOutput(*part) for part in parts]


class Backbone(nn.Module):
    """(N, size, size, 3) uint8 pictures -> the fields of `BackboneOutput`, as a plain tuple.

    Args:
        network: A network of `architectures.build`.
        mean: Mean of its pictures, one number in 0-1 per channel.
        std: Their standard deviation, one number per channel.
        detector: A `Detector` on two levels of its features. It computes in float32, whatever the network's precision.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: Network, mean: Sequence[float], std: Sequence[float], detector: nn.Module | None = None
    ):
        super().__init__()
        self.network, self.detector = network, detector
        self.register_buffer("mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("std", torch.tensor(std, dtype=torch.float32))

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """(N, size, size, 3) uint8 pictures -> features, and detections where there is a detector."""
        precision = next(self.network.parameters()).dtype
        images = normalize(pictures.permute(0, 3, 1, 2), self.mean, self.std).to(precision)
        if self.detector is None:
            return (self.network.forward_features(images).float(),)
        finer, features = (level.float() for level in self.network.forward_intermediates(images))
        return features, self.detector(finer, features)
