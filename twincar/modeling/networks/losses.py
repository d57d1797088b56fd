"""An angular margin between classes, for networks with the head "cosine"."""

import math

import torch
from torch import Tensor, nn

from twincar.modeling.networks.architectures import COSINE_SCALE


class AngularMargin(nn.Module):
    """Deng et al., "ArcFace", CVPR 2019 (arXiv:1801.07698), equation 3: the angle to the right class counts as `margin`
    radians wider while training, so that it must become that much narrower. Cross-entropy follows.

    Where the widened angle would pass 180 degrees, the logit goes on falling in a straight line, as in the authors' own
    code: with the cosine alone it would rise again.
    """

    def __init__(self, margin: float, scale: float = COSINE_SCALE):
        super().__init__()
        self.margin, self.scale = margin, scale

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """(N, K) logits = scale * cosine and (N,) labels -> (N, K) logits, lower at the label."""
        cosine = (logits.gather(1, labels[:, None]) / self.scale).clamp(-1 + 1e-6, 1 - 1e-6)
        widened = torch.cos(torch.acos(cosine) + self.margin)
        falling = cosine - self.margin * math.sin(math.pi - self.margin)
        widened = torch.where(cosine > math.cos(math.pi - self.margin), widened, falling)
        return logits.scatter(1, labels[:, None], (widened * self.scale).to(logits.dtype))
