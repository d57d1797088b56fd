"""An engine that runs the backbone in torch, on any device."""

import copy

import torch
from torch import Tensor

from twincar.modeling.engines.backbone import Backbone, BackboneOutput

PRECISIONS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine:
    """The backbone in torch. Half precision runs a copy of it, since the head needs the network in float32."""

    def __init__(self, backbone: Backbone, device: torch.device, precision: str):
        self.name, self.device = f"torch:{precision}", device
        self._backbone = backbone.to(device).to(memory_format=torch.channels_last)
        if precision != "f32":
            self._backbone = copy.deepcopy(backbone)
            self._backbone.network.to(PRECISIONS[precision])

    @torch.no_grad()  # not inference_mode: Grad-CAM++ differentiates with respect to these features
    def run(self, pictures: Tensor) -> BackboneOutput:
        """Run the backbone on (N, size, size, 3) uint8 pictures in CPU memory."""
        return BackboneOutput(*self._backbone(pictures.to(self.device)))
