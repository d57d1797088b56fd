"""Grad-CAM++ from features already computed: which parts of the picture speak for a class.

Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063). pytorch-grad-cam does the weighting. It is given the
head alone as its network and the features as its input: gradients run from the logits back to the features, not through
the network below. `tests/test_explain.py` holds the result equal to the library's own run over the whole network.
"""

from collections.abc import Callable

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
# The two sides of a difference, far apart for colour-blind people too; the photo under them is drawn in grey.
ORANGE, VIOLET = np.uint8([255, 140, 0]), np.uint8([98, 32, 200])
STRONGEST = 0.75  # opacity of the heat where it is 1
BAND = 64  # rows that are blended at once


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


def difference(network: nn.Module, features: Tensor, label: int, other: int) -> np.ndarray:
    """The (h, w) float32 map, in logits, of what speaks for `label` more than for `other` in (C, h, w) features.

    Gradient times features, summed over channels: HiResCAM (Draelos & Carin 2020, arXiv:2011.08891) of the difference
    of the two logits, both signs kept. Under a linear head on averaged features it is exact: the sum of the map is that
    difference, but for the two biases. Two Grad-CAM++ maps are each scaled to 0-1 and must not be subtracted.
    """
    with torch.enable_grad():
        features = features.detach()[None].float().requires_grad_(True)
        logits = network.forward_head(features)[0]
        (gradient,) = torch.autograd.grad(logits[label] - logits[other], features)
    return (gradient * features.detach())[0].sum(0).cpu().numpy()


def at_size(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map to size = (width, height) and span it over 0-1 again; in this order, as pytorch-grad-cam does."""
    return scale_cam_image(cv2.resize(cam, size)[None])[0].astype(np.float32, copy=False)


def at_size_signed(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map with both signs to size = (width, height) and divide it by its largest magnitude; 0 stays 0."""
    cam = cv2.resize(cam, size).astype(np.float32, copy=False)
    return cam / max(float(np.abs(cam).max()), 1e-12)


def overlay(photo: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """Lay a heatmap, (H, W) floats in 0-1 at the photo's size, over the photo: the stronger, the more opaque."""
    return _blend(photo, heatmap, lambda heat: COLOURS[(heat * 255).astype(np.uint8)])


def difference_overlay(photo: Image.Image, signed: np.ndarray) -> Image.Image:
    """Lay a difference, (H, W) floats in -1 to 1 at the photo's size, over the photo in grey, so that no colour of the
    car passes for one of the two: orange above 0, violet below, the stronger, the more opaque."""
    grey = photo.convert("L").convert("RGB")
    return _blend(grey, signed, lambda part: np.where(part[..., None] > 0, ORANGE, VIOLET))


def _blend(photo: Image.Image, strength: np.ndarray, colours: Callable[[np.ndarray], np.ndarray]) -> Image.Image:
    """Band by band: floats of a whole picture, as large as a photo may be, would take gigabytes."""
    blend = np.array(photo)
    for top in range(0, len(blend), BAND):
        band, part = blend[top : top + BAND], strength[top : top + BAND]
        opacity = np.abs(part)[..., None] * np.float32(STRONGEST)
        band[:] = band + (colours(part) - band.astype(np.float32)) * opacity
    return Image.fromarray(blend)
