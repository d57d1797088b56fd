"""Grad-CAM++ from features already computed: which parts of the picture speak for a class.

Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063). pytorch-grad-cam does the weighting. It is given the
head alone as its network and the features as its input: gradients run from the logits back to the features, not through
the network below. `tests/test_explain.py` holds the result equal to the library's own run over the whole network.
"""

import cv2
import numpy as np
import torch
from matplotlib import colormaps
from PIL import Image
from pytorch_grad_cam import GradCAMPlusPlus
from pytorch_grad_cam.utils.image import scale_cam_image
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

# Dark to bright, told apart by colour-blind people and in grey.
COLOURS = (colormaps["inferno"](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8)
STRONGEST = 0.75  # opacity of the heat where it is 1


class _Head(nn.Module):
    """The part above the features, with a place in front for pytorch-grad-cam to listen at."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network, self.features = network, nn.Identity()

    def forward(self, features: Tensor) -> Tensor:
        return self.network.forward_head(self.features(features))


def grad_cam_plus_plus(network: nn.Module, features: Tensor, label: int) -> np.ndarray:
    """The (h, w) float32 map in 0-1 of the evidence for `label` in the (C, h, w) features of one picture.

    `network` is any network under the contract of `architectures.py`, in eval mode. The map is scaled to span 0-1;
    where nothing speaks for the class it is 0 throughout.
    """
    with torch.enable_grad():
        features = features.detach()[None].float().requires_grad_(True)
        # A head of its own for each call: hooks of requests that are answered at the same time do not meet.
        head = _Head(network)
        with GradCAMPlusPlus(model=head, target_layers=[head.features]) as cam:
            return cam(input_tensor=features, targets=[ClassifierOutputTarget(label)])[0].astype(np.float32)


def at_size(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map to size = (width, height) and span it over 0-1 again; in this order, as pytorch-grad-cam does."""
    return scale_cam_image(cv2.resize(cam, size)[None])[0].astype(np.float32, copy=False)


def overlay(photo: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """Lay a heatmap, (H, W) floats in 0-1 at the photo's size, over the photo: the stronger, the more opaque."""
    heat = (heatmap * 255).astype(np.uint8)
    opacity = heatmap.astype(np.float32)[..., None] * STRONGEST
    blend = np.asarray(photo, dtype=np.float32)
    blend = blend + (COLOURS[heat] - blend) * opacity
    return Image.fromarray(blend.astype(np.uint8))
