"""The networks, all under one contract (timm's):

    forward_features(images: (N, 3, H, W)) -> features (N, C, h, w)
    forward_head(features)                 -> logits (N, num_classes)
    forward                                =  the two in turn

One pass gives features and logits; Grad-CAM++ then needs only the head. Module names are torchvision's, so that its
ImageNet weights and the checkpoints of the original TwinCar load without renaming anything.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.models import ResNet, get_model_weights, resnet

from twincar.config import TwinCarError

BLOCKS = {
    "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet34": (resnet.BasicBlock, [3, 4, 6, 3]),
    "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
}
HEADS = ("linear", "two_layer")


class WeightsError(TwinCarError):
    """Weights that cannot be used, in one sentence for the person who named them."""


class CarResNet(ResNet):
    """torchvision's ResNet (He et al., arXiv:1512.03385; stride in the 3x3 convolution) with a car head.

    Parameters
    ----------
    name : one of `BLOCKS`.
    num_classes : how many cars to tell apart.
    head : "linear" (Dropout, when there is any, then Linear) or "two_layer", the original TwinCar's: Linear to 512,
        ReLU, Dropout, Linear. Its layers keep the original's keys, `fc.0` and `fc.3`.
    dropout : probability in [0, 1).
    """

    def __init__(self, name: str, num_classes: int, head: str = "linear", dropout: float = 0.0):
        if name not in BLOCKS or head not in HEADS:
            raise ValueError(f"No network {name!r} with head {head!r}: choose from {sorted(BLOCKS)} and {HEADS}.")
        block, layers = BLOCKS[name]
        super().__init__(block, layers)
        width = 512 * block.expansion
        if head == "two_layer":
            self.fc = nn.Sequential(
                nn.Linear(width, 512), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(512, num_classes)
            )
        else:
            linear = nn.Linear(width, num_classes)
            self.fc = nn.Sequential(nn.Dropout(dropout), linear) if dropout else linear

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, 512 or 2048, H/32, W/32), not negative (they leave a ReLU)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward_head(self, features: Tensor) -> Tensor:
        """(N, C, h, w) features -> (N, num_classes) logits."""
        return self.fc(torch.flatten(self.avgpool(features), 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))


def build(name: str, num_classes: int, head: str = "linear", dropout: float = 0.0) -> nn.Module:
    """A network with random weights under the contract of this file; raises ValueError for a name it does not know."""
    return CarResNet(name, num_classes, head, dropout)


def initialise(network: nn.Module, init: str, name: str) -> None:
    """Load start weights for everything but the head, in place.

    init : "none" (stay random), "imagenet" (torchvision's own download) or the path of a `.safetensors` or `.pth` file
        with torchvision's keys. Raises WeightsError when the file is not that, or fits another network.
    """
    if init == "none":
        return
    if init == "imagenet":
        try:
            state = get_model_weights(name).DEFAULT.get_state_dict(progress=True)
        except OSError as error:
            raise WeightsError(
                f"torchvision's ImageNet weights for {name} could not be downloaded ({error}). "
                "Give a file with `--init PATH`, or train from nothing with `--init none`."
            ) from error
    else:
        state = read_state_dict(Path(init))
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}
    load_state_dict(network, state, source=init, may_miss=("fc.",))


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
