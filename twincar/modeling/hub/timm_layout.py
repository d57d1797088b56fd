"""The layout of a model folder that timm and transformers read too.

    timm.create_model("local-dir:models/twincar", pretrained=True)                     # or "hf-hub:user/repo"
    transformers.pipeline("image-classification", model="models/twincar")

config.json has timm's entries (architecture, num_classes, label_names, pretrained_cfg), and TwinCar's own under the key
"twincar"; the tensors of model.safetensors have timm's names. A network that timm does not have, such as one with
bilinear pooling or another head than a linear one, keeps TwinCar's own names and gets no entries of timm.
"""

from typing import Any

from torch import Tensor, nn

from twincar.config import IMAGENET_MEAN, IMAGENET_STD
from twincar.modeling.networks.architectures import TIMM, CarResNet, Network, TimmNet

KEY = "twincar"  # entry of config.json for TwinCar's own settings
CLASSES = "class_names"  # of the settings; timm's entry label_names in config.json


def is_timm(network: Network) -> bool:
    """Whether timm can create the network: a CNN with a linear head. Transformers are pooled in another way here."""
    if isinstance(network, TimmNet) and (network.channels_last or hasattr(network.backbone, "num_prefix_tokens")):
        return False
    return isinstance(network, CarResNet | TimmNet) and type(network.fc) is nn.Linear


def to_file(config: dict, network: Network) -> dict:
    """The content of config.json for the config of a model."""
    own = {key: value for key, value in config.items() if key != CLASSES}
    labels = {"label_names": config[CLASSES]}
    if not is_timm(network):
        return labels | {KEY: own}
    name = config["architecture"]["name"].removeprefix(TIMM)
    side = config["input"]["size"]
    pretrained_cfg: dict[str, Any] = {
        "input_size": [3, side, side],
        "fixed_input_size": False,
        "interpolation": "bicubic",
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mean": list(config["input"].get("mean", IMAGENET_MEAN)),
        "std": list(config["input"].get("std", IMAGENET_STD)),
        "num_classes": len(config[CLASSES]),
        "first_conv": _default_cfg(network).get("first_conv", "conv1"),
        "classifier": _classifier(network),
        "custom_load": False,
    }
    timm = {"architecture": name, "num_classes": len(config[CLASSES]), "num_features": network.fc.in_features}
    timm["dtype"] = "float32"  # transformers would compute in the file's half precision
    return timm | labels | {"pretrained_cfg": pretrained_cfg, KEY: own}


def from_file(content: dict) -> dict:
    """The config of a model for the content of config.json; one of before 0.2.0 is returned as it is."""
    if isinstance(own := content.get(KEY), dict) and "label_names" in content:
        return {CLASSES: list(content["label_names"])} | own
    return content


def to_timm_names(network: Network, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a network under timm's names, where timm can create it."""
    if not is_timm(network) or isinstance(network, CarResNet):  # torchvision's names of a ResNet are timm's
        return state
    classifier = _classifier(network)
    return {_renamed(key, "fc", classifier).removeprefix("backbone."): value for key, value in state.items()}


def from_timm_names(network: Network, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The reverse of `to_timm_names`; names that are the network's own stay."""
    if not isinstance(network, TimmNet) or any(key.startswith("backbone.") for key in state):
        return state
    classifier = _classifier(network)
    renamed = {_renamed(key, classifier, "fc"): value for key, value in state.items()}
    return {key if key.startswith("fc.") else f"backbone.{key}": value for key, value in renamed.items()}


def _renamed(key: str, old: str, new: str) -> str:
    return new + key.removeprefix(old) if key.startswith(f"{old}.") else key


def _default_cfg(network: Network) -> dict[str, Any]:
    return network.backbone.pretrained_cfg if isinstance(network, TimmNet) else {}


def _classifier(network: Network) -> str:
    """Timm's name of the last layer."""
    name = _default_cfg(network).get("classifier", "fc")
    return name if isinstance(name, str) else name[0]
