"""The recipes, as data. `train.py` and `task.py` read them and branch on nothing else.

twincar train --recipe flagship --data data/ --init imagenet --out runs/flagship
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Recipe:
    """How one model is trained. Sizes are pixels, shares and probabilities lie in 0-1, rates are per step.

    architecture, head, dropout, input_dropout, attention_heads : as of `architectures.build`.
    frozen : stages of the network (`stage` of `architectures.py`) without gradient, their batch norms in eval mode.
    train_share : share of the train rows that is learnt from, drawn evenly from all classes. A seed system that kept
        more than a tenth for validation or test learnt from less; here the rest is left unused, since every recipe is
        judged on the same val rows.
    conv_rms : root mean square that start weights of convolutions are brought to, as of `weights.rescale`; the rates
        are made for it. None leaves them as they come.
    sizes : (share of all epochs done, side of the training pictures) from small to large; the first share is 0.
    eval_size : side of the pictures at validation and in service. A size above the training size reads better
        (Touvron et al., "Fixing the train-test resolution discrepancy", arXiv:1906.06423).
    eval_flip : the published model reads a photo and its mirror image in one pass and averages their logits.
    mix_probability : share of batches on which MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899) is put, one or
        the other with even odds where both have an alpha; no mixing after `mix_until` of all epochs.
    margin : of an additive angular margin loss (ArcFace, arXiv:1801.07698), in radians; needs the head "cosine".
    learning_rates : (prefix of a stage, peak rate), first match wins.
    schedule : "plateau" (ReduceLROnPlateau on `monitor`) or "one_cycle" (arXiv:1708.07120, cosine down to nearly 0).
    """

    name: str
    summary: str
    architecture: str = "resnet50"
    head: str = "linear"
    dropout: float = 0.0
    input_dropout: float = 0.0
    attention_heads: int = 1
    frozen: tuple[str, ...] = ()
    train_share: float = 1.0
    conv_rms: float | None = None

    sizes: tuple[tuple[float, int], ...] = ((0.0, 224),)
    eval_size: int = 224
    eval_flip: bool = False
    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    rotation: float = 0.0  # degrees to either side
    shift: float = 0.0  # share of the side
    zoom: float = 0.0  # share of the size, to either side
    shear: float = 0.0  # degrees to either side
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue
    clahe: float = 0.0  # probabilities, from here to hole
    blur: float = 0.0
    grey: float = 0.0
    erasing: float = 0.0
    hole: float = 0.0
    hole_side: float = 32 / 224  # share of the side
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 0.0
    mix_until: float = 1.0

    balanced_sampler: bool = False
    label_smoothing: float = 0.1
    margin: float = 0.0
    optimizer: str = "sgd"
    learning_rates: tuple[tuple[str, float], ...] = (("", 0.01),)
    weight_decay: float = 0.0
    schedule: str = "one_cycle"
    warmup: float = 0.2  # share of the steps
    cycle_momentum: bool = True
    plateau_factor: float = 0.1
    plateau_patience: int = 2
    monitor: str = "val_f1_macro"
    patience: int | None = None  # epochs without a better `monitor`; None never stops early
    min_delta: float = 0.0  # what counts as better
    epochs: int = 25
    batch_size: int = 32

    def network(self) -> dict:
        """The arguments of `architectures.build`, but the number of classes; a published model's config keeps them."""
        return {
            "name": self.architecture,
            "head": self.head,
            "dropout": self.dropout,
            "input_dropout": self.input_dropout,
            "attention_heads": self.attention_heads,
        }

    def size_at(self, epoch: int) -> int:
        """Side of the training pictures in this epoch, counted from 0."""
        return [size for share, size in self.sizes if epoch >= share * self.epochs][-1]

    def eval_size_at(self, epoch: int) -> int:
        """Side of the validation pictures after this epoch: `eval_size` in the end, in proportion before."""
        return round(self.eval_size * self.size_at(epoch) / self.sizes[-1][1])


def best_is(monitor: str) -> str:
    """Whether the highest ("max") or the lowest ("min") value of this column of the training log is the best."""
    return "min" if monitor.endswith("loss") else "max"


TWINCAR = Recipe(
    name="twincar",
    summary="The original TwinCar: ResNet50 with conv1 to layer2 frozen, a two-layer head, class-balanced sampling.",
    head="two_layer",
    dropout=0.2,
    frozen=("conv1", "bn1", "layer1", "layer2"),
    conv_rms=0.02,
    crop_scale=(0.8, 1.0),
    rotation=10.0,
    jitter=(0.2, 0.2, 0.2, 0.1),
    blur=0.2,
    balanced_sampler=True,
    optimizer="adam",
    learning_rates=(("layer3", 1e-5), ("layer4", 1e-4), ("fc", 1e-3)),
    schedule="plateau",
    patience=7,
)

FLAGSHIP = Recipe(
    name="flagship",
    summary="The published ResNet50: bold rates, small pictures first, MixUp and CutMix, read above its training size.",
    frozen=("conv1", "bn1", "layer1"),
    conv_rms=0.4,
    sizes=((0.0, 96), (0.38, 128), (0.7, 160)),
    eval_size=208,
    jitter=(0.3, 0.3, 0.3, 0.0),
    mixup_alpha=0.2,
    cutmix_alpha=1.0,
    mix_probability=0.5,
    mix_until=0.7,
    learning_rates=(("fc", 0.5), ("", 0.25)),
    weight_decay=5e-4,
    epochs=36,
)

REPORT = Recipe(
    name="report",
    summary="The technical report's: a timm ResNet50, all trained by AdamW on one cycle, CLAHE, coarse dropout.",
    architecture="timm/resnet50",
    head="two_layer",
    dropout=0.2,
    input_dropout=0.3,
    train_share=0.85 / 0.9,
    conv_rms=0.02,
    crop_scale=(0.8, 1.0),
    crop_ratio=(0.9, 1.1),
    rotation=15.0,
    shift=0.1,
    zoom=0.1,
    jitter=(0.2, 0.2, 0.2, 0.1),
    clahe=0.3,
    hole=0.3,
    label_smoothing=0.0,
    optimizer="adamw",
    learning_rates=(("", 3e-4),),
    weight_decay=1e-2,
    warmup=0.1,
    patience=10,
    epochs=50,
)

BILINEAR = Recipe(
    name="bilinear",
    summary="Bilinear pooling over a self-attended ResNet50 with layer2 to layer4 trained, at three speeds.",
    head="bilinear",
    dropout=0.6,
    frozen=("conv1", "bn1", "layer1"),
    train_share=0.7 / 0.9,
    conv_rms=0.02,
    crop_scale=(0.7, 1.0),
    jitter=(0.2, 0.2, 0.2, 0.1),
    optimizer="adam",
    learning_rates=(("fc", 1e-3), ("conv1", 1e-5), ("bn1", 1e-5), ("layer1", 1e-5), ("", 1e-4)),
    weight_decay=1e-3,
    schedule="plateau",
    monitor="val_loss",
    patience=5,
    min_delta=0.01,
    epochs=30,
)

SCRATCH = Recipe(
    name="scratch",
    summary="A residual CNN of ResNet-18's shape from a random start: strong augmentation, MixUp, balanced sampling.",
    architecture="resnet18",
    dropout=0.5,
    crop_scale=(0.8, 1.0),
    rotation=15.0,
    shift=0.1,
    shear=10.0,
    jitter=(0.2, 0.2, 0.2, 0.1),
    blur=0.2,
    grey=0.1,
    erasing=0.3,
    mixup_alpha=0.4,
    mix_probability=0.5,
    balanced_sampler=True,
    label_smoothing=0.05,
    optimizer="adamw",
    learning_rates=(("", 1e-3),),
    weight_decay=1e-4,
    warmup=0.1,
    cycle_momentum=False,
    monitor="val_loss",
    patience=5,
    min_delta=1e-3,
    epochs=70,
)

LITE = replace(
    FLAGSHIP,
    name="lite",
    summary="The flagship's training on EfficientNet-Lite2, a fifth of the weights, as a small sibling.",
    architecture="timm/tf_efficientnet_lite2",
    conv_rms=None,
    learning_rates=(("fc", 0.2), ("", 0.03)),  # thin depthwise layers bear less than a ResNet's
)

RECIPES = {recipe.name: recipe for recipe in (TWINCAR, REPORT, BILINEAR, SCRATCH, FLAGSHIP, LITE)}

# Results that the authors of the original systems report, on their own validation or test pictures.
ORIGINAL_RESULTS = {
    "twincar": {
        "top1": 0.791, "top3": 0.909, "top5": 0.934, "f1_macro": 0.785,
        "note": "val: top-1 79.1 %, top-3 90.9 %, top-5 93.4 %, macro F1 0.785",
    },
    "report": {"top1": 0.84, "note": "test: top-1 84–88 %"},
    "bilinear": {"top1": 0.741, "top5": 0.928, "note": "val: top-1 74.1 %, top-5 92.8 %"},
    "scratch": {"top1": 0.709, "note": "val: top-1 70.9 %"},
}  # fmt: skip
