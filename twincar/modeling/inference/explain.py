"""Class activation maps (CAMs): which parts of a picture are evidence for a class.

All methods start from the features of one pass and run the head only (`forward_head`), not the network below. The maps
are those of pytorch-grad-cam (https://github.com/jacobgil/pytorch-grad-cam) on the whole network with its last layer as
target layer; the tests compare them. One exception: Score-CAM masks the features. Its paper masks the picture, which
would take one pass of the network per channel.

Grad-CAM++ and HiResCAM are computed here, so that the page starts without the seconds and the 100 MB that importing the
library takes. So are Ablation-CAM, because the library's depends on the batch size where features may be negative, and
Score-CAM, because the library's keeps the masked features of all channels, gigabytes. For the other methods the library
is imported when one of them is chosen.

`reports/explanations.md` compares methods: Grad-CAM++ and HiResCAM are equally faithful, but Grad-CAM++ differs little
between classes.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from twincar.config import TwinCarError
from twincar.modeling.networks.architectures import Network

# Inferno: dark to bright, readable for colour-blind people and in grey.
COLORS = cv2.applyColorMap(np.arange(256, dtype=np.uint8), cv2.COLORMAP_INFERNO).reshape(256, 3)[:, ::-1]
# The two signs of a difference, far apart for colour-blind people too; the photo under them is drawn in grey.
ORANGE, VIOLET = (255, 140, 0), (98, 32, 200)
STRONGEST = 0.75  # opacity of the heatmap where it is 1
BATCH = 32  # rows of one run of the head, for the methods that run it once per channel


def grad_cam_plus_plus(network: Network, features: Tensor, label: int) -> np.ndarray:
    """Grad-CAM++ of one picture, in pytorch-grad-cam's weighting.

    Chattopadhay et al., "Grad-CAM++", WACV 2018 (arXiv:1710.11063).

    Args:
        network: A network with the interface of `architectures.py`, in eval mode.
        features: (C, h, w) features of the picture.
        label: The class, 0 to K-1.

    Returns:
        (h, w) float32 map scaled to span 0-1; 0 throughout where there is no evidence for the class.
    """
    maps, gradient = _gradient(network, features, lambda logits: logits[label])
    # Equations 19 and 21 in one: where a gradient is not positive, its weight is 0 whatever alpha is.
    gradient = gradient.relu()
    square = gradient * gradient
    denominator = (maps.sum((1, 2), keepdim=True) * gradient).add_(2).mul_(square).add_(1e-6)
    weights = square.mul_(gradient).div_(denominator).sum((1, 2))
    cam = torch.einsum("c,chw->hw", weights, maps).relu()
    return _rescale(cam.cpu().numpy())


def hires_cam(network: Network, features: Tensor, label: int) -> np.ndarray:
    """HiResCAM of one picture: gradient times features; evidence against the class counts as well.

    Draelos & Carin 2020 (arXiv:2011.08891). Under a linear head on averaged features it equals Grad-CAM
    (arXiv:1610.02391) and, before it is cut off at 0, sums to the logit without its bias. What all cars have in common
    cancels. Arguments and result as for `grad_cam_plus_plus`.
    """
    maps, gradient = _gradient(network, features, lambda logits: logits[label])
    return _rescale((gradient * maps).sum(0).relu().cpu().numpy())


def ablation_cam(network: Network, features: Tensor, label: int) -> np.ndarray:
    """Ablation-CAM of one picture: each channel is weighted by how much the logit drops when the channel is set to 0.

    Desai & Ramaswamy, "Ablation-CAM", WACV 2020, section 3, without the division by the logit, which would turn the map
    around where the logit is negative. Arguments and result as for `grad_cam_plus_plus`.
    """
    features = features.detach().float()

    def without(channels: Tensor) -> Tensor:
        rows = features.repeat(len(channels), 1, 1, 1)
        rows[torch.arange(len(channels)), channels] = 0
        return rows

    with torch.no_grad():
        logit = network.forward_head(features[None])[0, label]
    return _weighted(logit - _logits(network, len(features), without, label), features)


def score_cam(network: Network, features: Tensor, label: int) -> np.ndarray:
    """Score-CAM of one picture, on its features: each channel is weighted by the logit of the features it masks.

    Wang et al., "Score-CAM", CVPR Workshops 2020 (arXiv:1910.01279), where the masks are laid over the features instead
    of the picture. A mask is a channel scaled to 0-1; the weights are the softmax of the logits over the channels.
    Arguments and result as for `grad_cam_plus_plus`.
    """
    features = features.detach().float()
    low, high = features.amin((1, 2), keepdim=True), features.amax((1, 2), keepdim=True)
    masks = (features - low) / (high - low + 1e-8)
    logits = _logits(network, len(features), lambda channels: features * masks[channels, None], label)
    return _weighted(logits.softmax(0), features)


def _logits(network: Network, count: int, changed: Callable[[Tensor], Tensor], label: int) -> Tensor:
    """(C,) logits of `label` for the features `changed` by each of `count` channels, BATCH channels at a time."""
    with torch.no_grad():
        batches = torch.arange(count).split(BATCH)
        return torch.cat([network.forward_head(changed(channels))[:, label] for channels in batches])


def _weighted(weights: Tensor, features: Tensor) -> np.ndarray:
    return _rescale(torch.einsum("c,chw->hw", weights, features).relu().cpu().numpy())


def library_cam(class_name: str, network: Network, features: Tensor, label: int) -> np.ndarray:
    """A method of pytorch-grad-cam, run on the features of one picture and the head.

    Args:
        class_name: The name of the method's class in `pytorch_grad_cam`.
        network: As for `grad_cam_plus_plus`; its parameters must not require gradients.
        features: As for `grad_cam_plus_plus`.
        label: As for `grad_cam_plus_plus`.

    Returns:
        As for `grad_cam_plus_plus`.

    Raises:
        TwinCarError: The library is not installed.
    """
    try:
        import pytorch_grad_cam
    except ImportError as error:
        raise TwinCarError(
            "This method needs the package grad-cam: install it with `pip install grad-cam`, "
            f"or choose {GRAD_CAM_PLUS_PLUS} or {HIRES_CAM}."
        ) from error
    head = _Head(network, features.device)
    cam = getattr(pytorch_grad_cam, class_name)(head, [head.layer])
    with torch.enable_grad():
        rows = features.detach()[None].float().requires_grad_(True)
        if class_name == "FinerCAM":  # chooses the classes to compare with by itself
            return cam(rows, target_idx=label)[0]
        return cam(rows, [lambda logits: logits[label]])[0]


class _Head(nn.Module):
    """The head behind a layer whose output is the features, for the library to use as its target layer."""

    def __init__(self, network: Network, device: torch.device):
        super().__init__()
        # The library moves its input to the device of the first parameter; the backbone's may be on "meta" (see
        # `choose.release_weights`).
        self.device = nn.Parameter(torch.empty(0, device=device), requires_grad=False)
        self.layer, self.network = nn.Identity(), network

    def forward(self, features: Tensor) -> Tensor:
        """(N, C, h, w) features -> (N, K) logits."""
        return self.network.forward_head(self.layer(features))


class Method(NamedTuple):
    """A CAM method.

    Attributes:
        cam: (network, features, label) -> map, as `grad_cam_plus_plus`.
        description: One sentence.
    """

    cam: Callable[[Network, Tensor, int], np.ndarray]
    description: str


def _of_library(class_name: str, description: str) -> Method:
    return Method(partial(library_cam, class_name), description)


GRAD_CAM_PLUS_PLUS, HIRES_CAM = "Grad-CAM++", "HiResCAM"
# The fastest first: the page and the command line list them in this order.
METHODS: dict[str, Method] = {
    GRAD_CAM_PLUS_PLUS: Method(
        grad_cam_plus_plus, "Weights channels by their positive gradients; differs little between classes (WACV 2018)."
    ),
    HIRES_CAM: Method(
        hires_cam, "Gradient times features, cell by cell; the most specific to the class (arXiv:2011.08891)."
    ),
    "Grad-CAM": _of_library("GradCAM", "Features weighted by their mean gradient (ICCV 2017)."),
    "XGrad-CAM": _of_library("XGradCAM", "Grad-CAM with gradients weighted by normalized features (BMVC 2020)."),
    "Layer-CAM": _of_library("LayerCAM", "Features weighted cell by cell by their positive gradients (TIP 2021)."),
    "Finer-CAM": _of_library(
        "FinerCAM", "Grad-CAM of the difference between the class and the three closest ones (CVPR 2025)."
    ),
    "Eigen-CAM": _of_library(
        "EigenCAM", "First principal component of the features; the same for every class (IJCNN 2020)."
    ),
    "Eigen-Grad-CAM": _of_library("EigenGradCAM", "First principal component of gradient times features."),
    "Ablation-CAM": Method(
        ablation_cam, "Features weighted by the drop of the logit without each channel (WACV 2020); takes a second."
    ),
    "Score-CAM": Method(
        score_cam, "Features weighted by the logit under a mask from each channel (arXiv:1910.01279); takes a second."
    ),
}


def find_method(name: str) -> str:
    """The key of `METHODS` for a name in any case, with or without hyphens, underscores and spaces.

    Raises:
        TwinCarError: There is no such method.
    """

    def plain(text: str) -> str:
        return "".join(letter for letter in text.lower() if letter not in "-_ ")

    for method in METHODS:
        if plain(method) == plain(name):
            return method
    raise TwinCarError(f"There is no method {name!r}: choose one of {', '.join(METHODS)}.")


def describe_method(name: str) -> str:
    """One sentence about a method; names and errors as for `find_method`."""
    return METHODS[find_method(name)].description


def _gradient(network: Network, features: Tensor, of: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """(C, h, w) features in float32, and the gradient there of a scalar `of` the (K,) logits."""
    with torch.enable_grad():
        features = features.detach()[None].float().requires_grad_(True)
        (gradient,) = torch.autograd.grad(of(network.forward_head(features)[0]), features)
    return features.detach()[0], gradient[0]


def difference(network: Network, features: Tensor, label: int, other: int) -> np.ndarray:
    """HiResCAM of the difference of two logits, both signs kept: positive where evidence favours `label`.

    Under a linear head on averaged features it is exact: the map sums to the difference of the logits without their
    biases. Two Grad-CAM++ maps are each scaled to 0-1 and must not be subtracted.

    Args:
        network: As for `grad_cam_plus_plus`.
        features: As for `grad_cam_plus_plus`.
        label: The one class.
        other: The other class.

    Returns:
        (h, w) float32 map in logits.
    """
    maps, gradient = _gradient(network, features, lambda logits: logits[label] - logits[other])
    return (gradient * maps).sum(0).cpu().numpy()


def at_size(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a map to size = (width, height), then rescale it to 0-1; in this order, as pytorch-grad-cam does."""
    return _rescale(cv2.resize(cam, size))


def _rescale(cam: np.ndarray) -> np.ndarray:
    """Subtract the minimum, then divide by the maximum; in place."""
    cam -= cam.min()
    cam /= cam.max() + 1e-7
    return cam


def at_size_signed(cam: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resize a signed map to size = (width, height) and divide it by its largest magnitude; 0 stays 0."""
    cam = cv2.resize(cam, size).astype(np.float32, copy=False)
    return cam / max(float(np.abs(cam).max()), 1e-12)


def overlay(photo: Image.Image, heatmap: np.ndarray) -> Image.Image:
    """Blend a heatmap, (H, W) floats in 0-1 at the photo's size, over the photo; opacity grows with the value."""
    colors = Image.fromarray((heatmap * 255).astype(np.uint8))
    colors.putpalette(COLORS.tobytes())
    return _blend(photo, colors.convert("RGB"), heatmap)


def difference_overlay(photo: Image.Image, signed: np.ndarray) -> Image.Image:
    """Blend a signed map, (H, W) floats in -1 to 1 at the photo's size, over the photo in grey.

    Orange above 0, violet below; opacity grows with the magnitude. The photo is grey so that no colour of the car is
    mistaken for one of the two.
    """
    colors = Image.new("RGB", photo.size, VIOLET)
    colors.paste(ORANGE, mask=Image.fromarray(signed > 0))
    return _blend(photo.convert("L").convert("RGB"), colors, np.abs(signed))


def _blend(photo: Image.Image, colors: Image.Image, strength: np.ndarray) -> Image.Image:
    """Composite in bytes: floats of a large photo, channel by channel, would take gigabytes."""
    opacity = (strength * (255 * STRONGEST) + 0.5).astype(np.uint8)
    return Image.composite(colors, photo, Image.fromarray(opacity))
