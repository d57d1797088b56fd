"""The networks, all under one contract (timm's):

    forward_features(images: (N, 3, H, W)) -> features (N, C, h, w)
    forward_head(features)                 -> logits (N, num_classes)
    forward                                =  the two in turn

One pass gives features and logits; Grad-CAM++ then needs only the head. `stage(name)` tells of every weight how deep it
lies, in a ResNet's words (conv1, bn1, layer1 to layer4, then the rest), so that a recipe that freezes or slows a part
does so in any backbone. `width` is C; `mean` and `std` are the statistics of the pictures that the start weights were
trained with.

    build("resnet50", 196)                                torchvision's, under its own key names
    build("timm/tf_efficientnet_lite2", 196)              any backbone of timm
    build("resnet50", 196, head="bilinear", dropout=0.6)  bilinear pooling over any of them
"""

import math

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


def build(
    name: str,
    num_classes: int,
    head: str = "linear",
    dropout: float = 0.0,
    input_dropout: float = 0.0,
    attention_heads: int = 1,
) -> nn.Module:
    """A network with random weights under the contract of this file.

    Parameters
    ----------
    name : one of `BLOCKS` (torchvision's ResNets), or "timm/<name>" for any backbone of timm.
    num_classes : how many cars to tell apart.
    head : "linear"; "two_layer" (Linear to 512, ReLU, Dropout, Linear); "cosine" (of normalised features and weights,
        for a margin loss); "bilinear" (self-attention, reduction, bilinear pooling, then linear).
    dropout : probability in [0, 1), before the last layer.
    input_dropout : the same before the first layer of the head.
    attention_heads : of the self-attention in front of bilinear pooling; divides 256.

    Raises ValueError for a name or head it does not know.
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
    """(N, width) pooled features -> (N, num_classes) logits. The keys of the seed's heads stay: fc; fc.0, fc.3."""
    layers: list[nn.Module] = [nn.Dropout(input_dropout)] if input_dropout else []
    if head == "two_layer":
        layers += [nn.Linear(width, HIDDEN), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(HIDDEN, num_classes)]
    else:
        layers += [nn.Dropout(dropout)] if dropout else []
        layers += [CosineLinear(width, num_classes) if head == "cosine" else nn.Linear(width, num_classes)]
    return layers[0] if len(layers) == 1 else nn.Sequential(*layers)


class CosineLinear(nn.Linear):
    """Cosines between features and class weights, in -1 to 1, times a scale: what margin losses ask of a head
    (Wang et al., "CosFace", arXiv:1801.09414, equation 2)."""

    def __init__(self, width: int, num_classes: int):
        super().__init__(width, num_classes, bias=False)

    def forward(self, features: Tensor) -> Tensor:
        normalize = nn.functional.normalize
        return COSINE_SCALE * nn.functional.linear(normalize(features), normalize(self.weight))


class CarResNet(ResNet):
    """torchvision's ResNet (He et al., arXiv:1512.03385; stride in the 3x3 convolution) with a car head. Module names
    are torchvision's: its ImageNet weights and the original TwinCar's checkpoints load without renaming anything."""

    mean, std = IMAGENET_MEAN, IMAGENET_STD

    def __init__(self, name: str, num_classes: int, **head):
        block, layers = BLOCKS[name]
        super().__init__(block, layers)
        self.width = 512 * block.expansion
        self.fc = make_head(self.width, num_classes, **head)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, 512 or 2048, H/32, W/32), not negative (they leave a ReLU)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward_head(self, features: Tensor) -> Tensor:
        """(N, C, h, w) features -> (N, num_classes) logits."""
        return self.fc(torch.flatten(self.avgpool(features), 1))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def stage(self, name: str) -> str:
        """The part of the network that the weight or module of this name belongs to."""
        return name.split(".")[0]


class TimmNet(nn.Module):
    """A backbone of timm with a car head. Features are what its own `forward_features` gives, as a map: a transformer's
    patch tokens are laid out on their grid, without its class token, and pooled by their mean."""

    def __init__(self, name: str, num_classes: int, **head):
        from timm.models import group_parameters  # a second to import: only for those who use it

        super().__init__()
        self.backbone = create_backbone(name)
        self.mean, self.std = (tuple(self.backbone.pretrained_cfg[key]) for key in ("mean", "std"))
        self.width = self.backbone.num_features  # channels of the features; the pooled ones may be more
        self.prefix_tokens: int = getattr(self.backbone, "num_prefix_tokens", 0)
        self.channels_last = getattr(self.backbone, "output_fmt", "NCHW") == "NHWC"
        self.fc = make_head(self.backbone.head_hidden_size, num_classes, **head)
        depths = group_parameters(self.backbone, self.backbone.group_matcher(coarse=True), reverse=True)
        deepest = max(depths.values())
        self._stages = {
            key: f"layer{1 + (depth - 1) * 4 // deepest}" if depth else "conv1" for key, depth in depths.items()
        }

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, C, h, w); of either sign in most transformers."""
        x = self.backbone.forward_features(images)
        if x.ndim == 3:
            rows, columns = self._grid(images, x)
            return x[:, self.prefix_tokens :].transpose(1, 2).unflatten(2, (rows, columns))
        return x.permute(0, 3, 1, 2) if self.channels_last else x

    def _grid(self, images: Tensor, tokens: Tensor) -> tuple[int, int]:
        count = tokens.shape[1] - self.prefix_tokens
        rows = round(math.sqrt(count * images.shape[2] / images.shape[3]))
        return rows, count // rows

    def forward_head(self, features: Tensor) -> Tensor:
        """(N, C, h, w) features -> (N, num_classes) logits."""
        if hasattr(self.backbone, "num_prefix_tokens"):
            return self.fc(features.mean((2, 3)))
        x = features.permute(0, 2, 3, 1) if self.channels_last else features
        return self.fc(self.backbone.forward_head(x, pre_logits=True))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def stage(self, name: str) -> str:
        """The part of the network that the weight of this name belongs to: the depth that timm tells for learning rates
        that decay with it, on a ResNet's scale."""
        top, _, rest = name.partition(".")
        return self._stages[rest] if top == "backbone" else top


def create_backbone(name: str, pretrained: bool = False) -> nn.Module:
    """timm's backbone without its classifier, taking pictures of any size where it can. Raises ValueError for a name
    that timm does not know, and OSError when weights are asked for and cannot be downloaded."""
    import timm

    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name.split('_')[0]}*")[:5])
        raise ValueError(f"timm has no backbone {name!r}" + (f": did you mean one of {near}?" if near else "."))
    for options in ({"strict_img_size": False}, {"dynamic_img_size": True}, {}):  # Swin's word, ViT's, and no word
        try:
            return timm.create_model(name, pretrained=pretrained, num_classes=0, **options)
        except TypeError as error:
            if "unexpected keyword" not in str(error):
                raise
    raise AssertionError("unreachable: the last options are none")


class SelfAttention(nn.Module):
    """Attention between the places of a feature map, added to it (Zhang et al., "SAGAN", arXiv:1805.08318, with the
    scaled dot product and the several heads of Vaswani et al., arXiv:1706.03762). It starts as the identity."""

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


class BilinearNet(nn.Module):
    """Bilinear pooling over a trunk (Lin et al., "Bilinear CNN Models", ICCV 2015): which channels fire together, at
    whatever place. Its linear layer alone has 512 x 512 x num_classes weights, 51 million for 196 cars."""

    def __init__(
        self, backbone: nn.Module, num_classes: int, dropout: float, input_dropout: float, attention_heads: int
    ):
        super().__init__()
        self.backbone, self.width, self.mean, self.std = backbone, backbone.width, backbone.mean, backbone.std
        self.attention = SelfAttention(backbone.width, heads=attention_heads)
        self.reduce = nn.Conv2d(backbone.width, HIDDEN, 1)
        self.fc = make_head(HIDDEN * HIDDEN, num_classes, "linear", dropout, input_dropout)

    def forward_features(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalised images -> (N, C, h, w), the trunk's features after attention.

        The reduction belongs to the head: it gives both signs, on which Grad-CAM++ finds nothing all too often.
        """
        return self.attention(self.backbone.forward_features(images))

    def forward_head(self, features: Tensor) -> Tensor:
        """(N, C, h, w) features -> (N, num_classes) logits."""
        x = self.reduce(features).flatten(2)
        with torch.autocast(
            x.device.type, enabled=False
        ):  # sums of squares, then roots, and weights too many to convert each time
            x = x.float()
            x = (x @ x.transpose(1, 2) / x.shape[2]).flatten(1)
            x = x.sign() * (x.abs() + 1e-5).sqrt()  # the little keeps the gradient of the root small near 0
            return self.fc(nn.functional.normalize(x))

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def stage(self, name: str) -> str:
        """The part of the network that the weight of this name belongs to."""
        top, _, rest = name.partition(".")
        return self.backbone.stage(rest) if top == "trunk" else top
