"""Additive angular margin (ArcFace) for networks with a "cosine" head."""

import math

import torch
from torch import Tensor, nn

from twincar.modeling.networks.architectures import COSINE_SCALE


class AngularMargin(nn.Module):
    """Adds `margin` radians to the angle of the true class; cross-entropy follows.

    Deng et al., "ArcFace", CVPR 2019 (arXiv:1801.07698), equation 3. Where the angle plus the margin exceeds 180
    degrees the logit decreases linearly, as in the authors' code: the cosine alone would increase again.
    """

    def __init__(self, margin: float, scale: float = COSINE_SCALE):
        super().__init__()
        self.margin, self.scale = margin, scale

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, K) logits = scale * cosine and (N,) labels -> (N, K) logits, lower at the label."""
        cosine = (logits.gather(1, labels[:, None]) / self.scale).clamp(-1 + 1e-6, 1 - 1e-6)
        shifted = torch.cos(torch.acos(cosine) + self.margin)
        linear = cosine - self.margin * math.sin(math.pi - self.margin)
        shifted = torch.where(cosine > math.cos(math.pi - self.margin), shifted, linear)
        return logits.scatter(1, labels[:, None], (shifted * self.scale).to(logits.dtype))
