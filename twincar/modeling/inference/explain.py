"""Grad-CAM++ and HiResCAM from features already computed: which parts of the picture speak for a class.

Gradients run from the logits back to the features, not through the network below: one pass of the head. Both are those
of pytorch-grad-cam, to which `tests/test_explain.py` holds them equal; the library itself would take the page a second
and 100 MB to import. `reports/explanations.md` grades them: they are as faithful as each other, but Grad-CAM++ changes
little from class to class.
"""

from collections.abc import Callable

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

    Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063), in pytorch-grad-cam's weighting. `network` is any
    network under the contract of `architectures.py`, in eval mode. The map is scaled to span 0-1; where nothing speaks
    for the class it is 0 throughout.
    """
    maps, gradient = _gradient(network, features, lambda logits: logits[label])
    # Equations 19 and 21 in one: where a gradient is not positive, its weight is 0 whatever alpha is.
    gradient = gradient.relu()
    square = gradient * gradient
    denominator = (maps.sum((1, 2), keepdim=True) * gradient).add_(2).mul_(square).add_(1e-6)
    weights = square.mul_(gradient).div_(denominator).sum((1, 2))
    cam = torch.einsum("c,chw->hw", weights, maps).relu()
    return _spanned(cam.cpu().numpy())


def hires_cam(network: nn.Module, features: Tensor, label: int) -> np.ndarray:
    """The same by HiResCAM: what speaks against the class counts as well, so that what all cars have in common cancels.

    Draelos & Carin 2020 (arXiv:2011.08891). Under a linear head on averaged features it is Grad-CAM (arXiv:1610.02391)
    and, before it is cut off at 0, adds up to the logit but for the bias.
    """
    maps, gradient = _gradient(network, features, lambda logits: logits[label])
    return _spanned((gradient * maps).sum(0).relu().cpu().numpy())


METHODS = {"Grad-CAM++": grad_cam_plus_plus, "HiResCAM": hires_cam}
GRAD_CAM_PLUS_PLUS, HIRES_CAM = METHODS


def _gradient(network: nn.Module, features: Tensor, of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(C, h, w) features in float32, and the gradient there of a scalar `of` the (K,) logits."""
    with torch.enable_grad():
        features = features.detach()[None].float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(of(network.forward_head(features)[0]), features)
    return features.detach()[0], gradient[0]


def difference(network: nn.Module, features: Tensor, label: int, other: int) -> np.ndarray:
    """The (h, w) float32 map, in logits, of what speaks for `label` more than for `other` in (C, h, w) features.

    Gradient times features, summed over channels: HiResCAM of the difference of the two logits, both signs kept. Under
    a linear head on averaged features it is exact: the sum of the map is that difference, but for the two biases. Two
    Grad-CAM++ maps are each scaled to 0-1 and must not be subtracted.
    """
    maps, gradient = _gradient(network, features, lambda logits: logits[label] - logits[other])
    return (gradient * maps).sum(0).cpu().numpy()


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
