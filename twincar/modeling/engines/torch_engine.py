"""The backbone in torch, for any device."""

import copy

import torch
from torch import Tensor

from twincar.modeling.engines.backbone import Backbone, BackboneOutput

PRECISIONS = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}


class TorchEngine:
    """The trunk in torch. In half precision it runs as a copy: the head needs the network as it is."""

    def __init__(self, backbone: Backbone, device: torch.device, precision: str):
        self.name, self.device = f"torch:{precision}", device
        self._backbone = backbone.to(device, memory_format=torch.channels_last)
        if precision != "f32":
            self._backbone = copy.deepcopy(backbone)
            self._backbone.network.to(PRECISIONS[precision])

    @torch.no_grad()  # not inference_mode: explaining differentiates through the head, from these features
    def run(self, pictures: Tensor) -> BackboneOutput:
        return BackboneOutput(*self._backbone(pictures.to(self.device)))
