"""Network architectures, with timm's interface.

    forward_features(images: (N, 3, H, W)) -> features (N, C, h, w)
    forward_head(features)                 -> logits (N, num_classes)
    forward                                =  the two in turn
    forward_intermediates(images)          -> features of half the stride (N, c, 2h, 2w), and features

One pass returns features and logits; Grad-CAM++ then needs only the head.

    build("resnet50", 196)                                torchvision's ResNet50, under its own key names
    build("timm/tf_efficientnet_lite2", 196)              any backbone of timm
    build("resnet50", 196, head="bilinear", dropout=0.6)  bilinear pooling on top of any of them
"""

import copy
import math
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models import ResNet, resnet

from twincar.config import IMAGENET_MEAN, IMAGENET_STD

BLOCKS = {
    "resnet18": (resnet.BasicBlock, [2, 2, 2, 2]),
    "resnet34": (resnet.BasicBlock, [3, 4, 6, 3]),
    "resnet50": (resnet.Bottleneck, [3, 4, 6, 3]),
}
HEADS = ("linear", "two_layer", "cosine", "bilinear")
TIMM = "timm/"
HIDDEN = 512  # width of the two-layer head and of the reduction before bilinear pooling
COSINE_SCALE = 30.0


class Network(nn.Module):
    """Base class of all networks.

    Attributes:
        width: Number of channels C of the features.
        mean: Mean (0-1) of each color channel of the pictures that the initial weights were trained on.
        std: Their standard deviation.
        fc: The last layers, from pooled features to logits.
    """

    width: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    fc: nn.Module

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalized images -> (N, C, h, w) features."""
        raise NotImplementedError

    def forward_intermediates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) normalized images -> the features of two levels, from one pass.

        Returns:
            Features of half the stride, usually 16 pixels: (N, c, 2h, 2w); and those of `forward_features`. A network
            with one stride, such as a vision transformer, returns the latter twice.
        """
        raise NotImplementedError

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, h, w) features -> (N, num_classes) logits, or with `pre_logits` what `fc` computes them from."""
        raise NotImplementedError

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalized images -> (N, num_classes) logits."""
        return self.forward_head(self.forward_features(images))

    def with_head(self, fc: nn.Module) -> "Network":
        """A network with another last layer; the backbone is the same, not a copy."""
        network = copy.copy(self)
        network._modules = self._modules.copy()
        network.fc = fc
        return network

    def stage(self, name: str) -> str:
        """Depth of the weight or module `name` in a ResNet's terms: conv1, bn1, layer1 to layer4, or part of the head.

        With it a recipe freezes a stage, or gives it its own learning rate, in any backbone.
        """
        return name.split(".")[0]


def build(
    name: str,
    num_classes: int,
    head: str = "linear",
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    attention_heads: int = 1,
) -> Network:
    """Create a network with random weights.

    Args:
        name: One of `BLOCKS` (torchvision's ResNets), or "timm/<name>" for any backbone of timm.
        num_classes: Number of classes.
        head: "linear"; "two_layer" (Linear to 512, ReLU, Dropout, Linear); "cosine" (of normalized features and
            weights, for a margin loss); "bilinear" (self-attention, reduction, bilinear pooling, then linear).
        dropout: Probability in [0, 1), before the last layer.
        input_dropout: The same before the first layer of the head.
        attention_heads: Number of heads of the self-attention in front of bilinear pooling; must divide 256.

    Raises:
        ValueError: There is no network or head of this name.
    """
    if head not in HEADS:
        raise ValueError(f"There is no head {head!r}: choose from {HEADS}.")
    if head == "bilinear":
        backbone = build(name, 1)
        backbone.fc = nn.Identity()
        return BilinearNet(backbone, num_classes, dropout, input_dropout, attention_heads)
    options = {"head": head, "dropout": dropout, "input_dropout": input_dropout}
    if name.startswith(TIMM):
        return TimmNet(name.removeprefix(TIMM), num_classes, **options)
    if name not in BLOCKS:
        raise ValueError(f"There is no network {name!r}: choose from {sorted(BLOCKS)} or timm/<a backbone of timm>.")
    return CarResNet(name, num_classes, **options)


def make_head(width: int, num_classes: int, head: str, dropout: float, input_dropout: float = 0.0) -> nn.Module:
    """Layers from (N, width) pooled features to (N, num_classes) logits.

    The state dict keys are those of the original systems' heads: fc, or fc.0 and fc.3.
    """
    layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
    if head == "two_layer":
        layers += [nn.Linear(width, HIDDEN), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(HIDDEN, num_classes)]
    else:
        layers += [nn.Dropout(dropout)] if dropout else []
        layers += [CosineLinear(width, num_classes) if head == "cosine" else nn.Linear(width, num_classes)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


class CosineLinear(nn.Linear):
    """Cosine (-1 to 1) of features and class weights, times a scale: the head for margin losses.

    Wang et al., "CosFace", arXiv:1801.09414, equation 2.
    """

    def __init__(self, width: int, num_classes: int):
        super().__init__(width, num_classes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        """(N, width) features -> (N, num_classes) logits."""
        normalize = nn.functional.normalize
        return COSINE_SCALE * nn.functional.linear(normalize(features), normalize(self.weight))


class CarResNet(Network, ResNet):
    """ResNet of torchvision (He et al., arXiv:1512.03385; stride in the 3x3 convolution) with one of our heads.

    Module names are torchvision's, so that its ImageNet weights and the original TwinCar's checkpoints load unchanged.
    """

    avgpool: nn.Module

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, name: str, num_classes: int, **head):
        block, layers = BLOCKS[name]
        super().__init__(block, layers)
        self.width = 512 * block.expansion
        self.fc = make_head(self.width, num_classes, **head)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalized images -> (N, 512 or 2048, H/32, W/32), non-negative (after a ReLU)."""
        return self.forward_intermediates(images)[1]

    def forward_intermediates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) normalized images -> the outputs of layer3, of stride 16, and of layer4, of stride 32."""
        x = images
        for name in ("conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3"):
            x = self.get_submodule(name)(x)
        return x, self.get_submodule("layer4")(x)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, h, w) features -> (N, num_classes) logits, or (N, C) means of the features."""
        pooled = torch.flatten(self.avgpool(features), 1)
        return pooled if pre_logits else self.fc(pooled)


class TimmNet(Network):
    """Backbone of timm with one of our heads.

    Features are those of its own `forward_features`, as a map: a transformer's patch tokens are arranged on their grid,
    without its class token, and pooled by their mean.
    """

    def __init__(self, name: str, num_classes: int, **head):
        super().__init__()
        self.backbone = create_backbone(name)
        self.mean, self.std = (tuple(self.backbone.pretrained_cfg[key]) for key in ("mean", "std"))
        self.width = self.backbone.num_features  # the pooled features may have more channels
        self.prefix_tokens: int = getattr(self.backbone, "num_prefix_tokens", 0)
        self.channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        strides = [level["reduction"] for level in getattr(self.backbone, "feature_info", ())]
        finer = [index for index, stride in enumerate(strides) if 2 * stride == strides[-1]]
        # The level of half the stride; some backbones return none.
        self._finer = finer[-1] if finer and hasattr(self.backbone, "forward_intermediates") else None
        pooled = getattr(self.backbone, "head_hidden_size", self.width)  # MetaFormer lacks it before timm 1.0.31
        self.fc = make_head(pooled, num_classes, **head)
        depths = _depths(self.backbone)
        deepest = max(depths.values())
        self._stages = {
            key: f"layer{1 + (depth - 1) * 4 // deepest}" if depth else "conv1" for key, depth in depths.items()
        }

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalized images -> (N, C, h, w); of either sign in most transformers."""
        return self._as_map(images, self.backbone.forward_features(images))

    def forward_intermediates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) normalized images -> the features of half the stride, if there are any, and the features."""
        if self._finer is None:
            features = self.forward_features(images)
            return features, features
        x, (finer,) = self.backbone.forward_intermediates(images, indices=[self._finer], output_fmt="NCHW")
        return finer, self._as_map(images, x)

    def _as_map(self, images: Tensor, x: Tensor) -> Tensor:
        """The backbone's output as (N, C, h, w).

        Raises:
            ValueError: It is something else, such as a list of maps.
        """
        if not isinstance(x, Tensor) or x.ndim not in (3, 4):
            raise ValueError("its features are not one map of shape (N, C, h, w)")
        if x.ndim == 3:
            rows, columns = self._grid(images, x)
            return x[:, self.prefix_tokens :].transpose(1, 2).unflatten(2, (rows, columns))
        return x.permute(0, 3, 1, 2) if self.channels_last else x

    def _grid(self, images: Tensor, tokens: Tensor) -> tuple[int, int]:
        """(rows, columns) of a transformer's patch tokens."""
        count = tokens.shape[1] - self.prefix_tokens
        rows = round(math.sqrt(count * images.shape[2] / images.shape[3]))
        return rows, count // rows

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, h, w) features -> (N, num_classes) logits, or timm's own (N, D) pooled features."""
        if hasattr(self.backbone, "num_prefix_tokens"):
            pooled = features.mean((2, 3))
        else:
            x = features.permute(0, 2, 3, 1) if self.channels_last else features
            pooled = self.backbone.forward_head(x, pre_logits=True)
        return pooled if pre_logits else self.fc(pooled)

    def stage(self, name: str) -> str:
        """Depth of the weight `name`: timm's own, for layer-wise learning rates, mapped to a ResNet's stages."""
        top, _, rest = name.partition(".")
        return self._stages[rest] if top == "backbone" else top


def _depths(backbone: Any) -> dict[str, int]:
    """Depth of each parameter of a timm backbone, from 0: of its layers as timm groups them, else of the parameters."""
    from timm.models import group_parameters  # takes a second to import

    try:
        return group_parameters(backbone, backbone.group_matcher(coarse=True), reverse=True)
    except (AttributeError, AssertionError):  # MetaFormer, PiT and others have no coarse groups
        return {key: depth for depth, (key, _) in enumerate(backbone.named_parameters())}


def create_backbone(name: str, pretrained: bool = False) -> Any:  # timm's models have no common base class
    """Create a backbone of timm without its classifier, for pictures of any size where it supports that.

    Raises:
        ValueError: timm has no model of this name.
        OSError: The pretrained weights cannot be downloaded.
    """
    import timm

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise ValueError(f"timm has no backbone {name!r}" + (f": did you mean one of {near}?" if near else "."))
    any_size: list[dict[str, Any]] = [{"strict_img_size": False}, {"dynamic_img_size": True}, {}]  # Swin, ViT, others
    for options in any_size:
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
    raise AssertionError("unreachable: the last variant passes no options")


class SelfAttention(nn.Module):
    """Self-attention between the positions of a feature map, added to it; starts as the identity.

    Zhang et al., "SAGAN", arXiv:1805.08318, with the scaled dot product and multiple heads of Vaswani et al.,
    arXiv:1706.03762.
    """

    def __init__(self, channels: int, key_channels: int = 256, heads: int = 1):
        super().__init__()
        if key_channels % heads or channels % heads:
            raise ValueError(f"{heads} attention heads do not divide {key_channels} and {channels} channels.")
        self.heads = heads
        self.query, self.key = (nn.Conv2d(channels, key_channels, 1) for _ in range(2))
        self.value = nn.Conv2d(channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) -> the same shape."""

        def split(y: Tensor) -> Tensor:  # (N, c, h, w) -> (N, heads, h * w, c / heads)
            return y.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)

        query, key, value = (split(layer(x)) for layer in (self.query, self.key, self.value))
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return x + self.gamma * mixed.transpose(2, 3).flatten(1, 2).unflatten(2, x.shape[2:])


class BilinearNet(Network):
    """Bilinear pooling on top of a backbone: products of all pairs of channels, averaged over the positions.

    Lin et al., "Bilinear CNN Models", ICCV 2015. The linear layer alone has 512 x 512 x num_classes weights, 51 million
    for 196 classes.
    """

    def __init__(self, backbone: Network, num_classes: int, dropout: float, input_dropout: float, attention_heads: int):
        super().__init__()
        self.backbone, self.width, self.mean, self.std = backbone, backbone.width, backbone.mean, backbone.std
        self.attention = SelfAttention(backbone.width, heads=attention_heads)
        self.reduce = nn.Conv2d(backbone.width, HIDDEN, 1)
        self.fc = make_head(HIDDEN * HIDDEN, num_classes, "linear", dropout, input_dropout)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalized images -> (N, C, h, w), the backbone's features after attention.

        The reduction belongs to the head: its outputs have both signs, for which Grad-CAM++ is often 0 everywhere.
        """
        return self.forward_intermediates(images)[1]

    def forward_intermediates(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3, H, W) normalized images -> the backbone's features of half the stride, and `forward_features`."""
        finer, features = self.backbone.forward_intermediates(images)
        return finer, self.attention(features)

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        """(N, C, h, w) features -> (N, num_classes) logits, or (N, 512 * 512) products of the channels."""
        x = self.reduce(features).flatten(2)
        # In float32: sums of squares followed by roots, and too many weights to convert in every step.
        with torch.autocast(x.device.type, enabled=False):
            x = x.float()
            x = (x @ x.transpose(1, 2) / x.shape[2]).flatten(1)
            x = x.sign() * (x.abs() + 1e-5).sqrt()  # 1e-5 bounds the gradient of the root near 0
            x = nn.functional.normalize(x)
            return x if pre_logits else self.fc(x)

    def stage(self, name: str) -> str:
        """Depth of the weight `name`: that in the backbone, or a part of the head."""
        top, _, rest = name.partition(".")
        return self.backbone.stage(rest) if top == "backbone" else top

    def _load_from_state_dict(self, state_dict, prefix, *args) -> None:
        """Load a state dict; keys of versions before 0.2.0 are renamed."""
        old = f"{prefix}trunk."
        for key in [key for key in state_dict if key.startswith(old)]:
            state_dict[f"{prefix}backbone.{key.removeprefix(old)}"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)
