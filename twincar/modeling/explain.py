"""Grad-CAM++ from features already computed: which parts of the picture speak for a class.

Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063). Gradients run from the logits back to the features, not
through the network below: one pass of the head. The weighting is pytorch-grad-cam's, to which
`tests/test_explain.py` holds it equal; the library itself would take the page a second and 100 MB to import.
"""

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

# Inferno: dark to bright, told apart by colour-blind people and in grey.
COLOURS = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO).reshape(256, 3)[:, ::-1]
# The two sides of a difference, far apart for colour-blind people too; the photo under them is drawn in grey.
ORANGE, VIOLET = (255, 140, 0), (98, 32, 200)
STRONGEST = 0.75  # opacity of the heat where it is 1


def grad_cam_plus_plus(network: nn.Module, features: Tensor, label: int) -> np.ndarray:
    """The (h, w) float32 map in 0-1 of the evidence for `label` in the (C, h, w) features of one picture.

    `network` is any network under the contract of `architectures.py`, in eval mode. The map is scaled to span 0-1;
    where nothing speaks for the class it is 0 throughout.
    """
    with torch.enable_grad():
        features = features.detach()[None].float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(network.forward_head(features)[0, label], features)
    maps, gradient = features.detach()[0], gradient[0]
    square = gradient**2
    alpha = square / (2 * square + maps.sum((1, 2), keepdim=True) * square * gradient + 1e-6)  # equation 19
    weights = (gradient.relu() * alpha.where(gradient != 0, 0)).sum((1, 2))  # equation 21
    cam = torch.einsum("c,chw->hw", weights, maps).relu()
    return _spanned(cam.cpu().numpy())


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
    return _spanned(cv2.resize(cam, size))


def _spanned(cam: np.ndarray) -> np.ndarray:
    """The map less its least value, divided by the largest then; in place."""
    cam -= cam.min()
    cam /= cam.max() + 1e-7
    return cam


def at_size_signed(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Enlarge a map with both signs to size = (width, height) and divide it by its largest magnitude; 0 stays 0."""
    cam = cv2.resize(cam, size).astype(np.float32, copy=False)
    return cam / max(float(np.abs(cam).max()), 1e-12)


def overlay(photo: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """Lay a heatmap, (H, W) floats in 0-1 at the photo's size, over the photo: the stronger, the more opaque."""
    colours = Image.fromarray((heatmap * 255).astype(np.uint8))
    colours.putpalette(COLOURS.tobytes())
    return _blend(photo, colours.convert("RGB"), heatmap)


def difference_overlay(photo: Image.Image, signed: np.ndarray) -> Image.Image:
    """Lay a difference, (H, W) floats in -1 to 1 at the photo's size, over the photo in grey, so that no colour of the
    car passes for one of the two: orange above 0, violet below, the stronger, the more opaque."""
    colours = Image.new("RGB", photo.size, VIOLET)
    colours.paste(ORANGE, mask=Image.fromarray(signed > 0))
    return _blend(photo.convert("L").convert("RGB"), colours, np.abs(signed))


def _blend(photo: Image.Image, colours: Image.Image, strength: np.ndarray) -> Image.Image:
    """In bytes throughout: floats of a large photo, channel by channel, would be gigabytes."""
    opacity = (strength * (255 * STRONGEST) + 0.5).astype(np.uint8)
    return Image.composite(colours, photo, Image.fromarray(opacity))
