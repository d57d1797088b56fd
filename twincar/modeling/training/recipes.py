"""Training recipes as dataclasses. The training code reads their fields and has no special cases for any recipe.

On the command line: `twincar train --recipe flagship --data data/ --init imagenet --out runs/flagship`.
"""

from dataclasses import dataclass, replace
from typing import Literal

from twincar.config import TwinCarError


@dataclass(frozen=True)
class Recipe:
    """How one model is trained. Fractions and probabilities are in 0-1.

    Attributes:
        name: Name on the command line.
        summary: One sentence for the page of its report.
        architecture: Name of the network, as in `architectures.build`.
        head: Its head, as in `architectures.build`.
        dropout: Probability of dropout before the last layer.
        input_dropout: Probability of dropout before the first layer of the head.
        attention_heads: Number of heads of the self-attention in front of bilinear pooling.
        frozen: Stages of the network (`Network.stage`) without gradient; their batch norms stay in eval mode.
        train_share: Fraction of the train rows that are used, drawn evenly from all classes. An original system that
            kept more than a tenth for validation or test was trained on fewer; here the rest is unused, since every
            recipe is evaluated on the same val rows.
        conv_rms: Root mean square that initial weights of convolutions are scaled to, see `weights.rescale`; the
            learning rates are tuned for it. None leaves them unchanged.
        sizes: (fraction of the epochs, side of the training pictures in pixels) in increasing order; the first fraction
            is 0.
        eval_size: Side of the pictures at validation and inference, in pixels. A size above the training size is more
            accurate (Touvron et al., "Fixing the train-test resolution discrepancy", arXiv:1906.06423).
        eval_flip: Whether the published model also processes the mirror image and averages the logits.
        crop_scale: Range of the area of random crops, as a fraction of the picture.
        crop_ratio: Range of their aspect ratio.
        rotation: Largest rotation to either side, in degrees.
        shift: Largest translation, as a fraction of the side.
        zoom: Largest change of the size, as a fraction of it.
        shear: Largest shear to either side, in degrees.
        jitter: Strength of random changes of brightness, contrast, saturation and hue, as in `v2.ColorJitter`.
        clahe: Probability of contrast-limited adaptive histogram equalization.
        blur: Probability of Gaussian blur.
        grey: Probability of grayscale.
        erasing: Probability of random erasing.
        hole: Probability of coarse dropout: one black square.
        hole_side: Side of that square, as a fraction of the picture's.
        corruption: Probability of one of the corruptions of `features/corruptions.py`.
        paste: Probability that the car is pasted onto a photo without cars instead of cropped.
        mixup_alpha: Parameter of MixUp's beta distribution (arXiv:1710.09412); 0 for no MixUp.
        cutmix_alpha: The same for CutMix (arXiv:1905.04899).
        mix_probability: Probability that a batch is mixed, by one of the two chosen at random if both are on.
        mix_until: Fraction of the epochs after which batches are not mixed.
        balanced_sampler: Whether all classes are drawn equally often.
        label_smoothing: Label smoothing of the cross-entropy.
        margin: Additive angular margin (ArcFace, arXiv:1801.07698) in radians; needs the "cosine" head.
        optimizer: "sgd", "adam" or "adamw".
        learning_rates: (prefix of a stage, peak learning rate); the first match is used.
        weight_decay: Weight decay of the optimizer.
        schedule: "plateau" (ReduceLROnPlateau on `monitor`) or "one_cycle" (arXiv:1708.07120, cosine down to nearly 0).
        warmup: Fraction of the steps of "one_cycle" in which the learning rate increases.
        cycle_momentum: Whether "one_cycle" also cycles the momentum.
        plateau_factor: Factor of the learning rate on a plateau.
        plateau_patience: Epochs without improvement before that.
        monitor: Column of the training log that selects the best epoch among those with the last of `sizes`; "epoch"
            selects the last one.
        patience: Epochs without improvement of `monitor`, at the last of `sizes`, before the training stops; None never
            stops early.
        min_delta: Smallest change of `monitor` that counts as an improvement for `patience`.
        epochs: Maximum number of epochs.
        batch_size: Number of pictures in a step.
        ema_decay: Decay per step of the exponential moving average of the weights, which is then what is validated and
            published; 0 for none.
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
    rotation: float = 0.0
    shift: float = 0.0
    zoom: float = 0.0
    shear: float = 0.0
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    clahe: float = 0.0
    blur: float = 0.0
    grey: float = 0.0
    erasing: float = 0.0
    hole: float = 0.0
    hole_side: float = 32 / 224
    corruption: float = 0.0
    paste: float = 0.0
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
    warmup: float = 0.2
    cycle_momentum: bool = True
    plateau_factor: float = 0.1
    plateau_patience: int = 2
    monitor: str = "val_f1_macro"
    patience: int | None = None
    min_delta: float = 0.0
    epochs: int = 25
    batch_size: int = 32
    ema_decay: float = 0.0

    def network(self) -> dict:
        """Arguments of `architectures.build` except the number of classes, as in a published model's config."""
        return {
            "name": self.architecture,
            "head": self.head,
            "dropout": self.dropout,
            "input_dropout": self.input_dropout,
            "attention_heads": self.attention_heads,
        }

    def size_at(self, epoch: int) -> int:
        """Side of the training pictures in an epoch, counted from 0, in pixels."""
        return [size for start, size in self.sizes if epoch >= start * self.epochs][-1]

    def progressive(self) -> "Recipe":
        """Return the recipe with smaller training pictures in most epochs, in three fifths of the time.

        Sides are half of `eval_size`, from 38 % of the epochs two thirds, from 70 % the whole of it, when the learning
        rates of one cycle are still high enough to adapt to larger pictures. Every epoch is validated at the size of
        its training pictures. EfficientNetV2 grows its pictures in a similar way (arXiv:2104.00298), but also its
        regularization, which stays as it is here.

        Raises:
            TwinCarError: The learning rates fall on a plateau of the metrics, which cannot be compared across sizes.
        """
        if self.schedule == "plateau":
            raise TwinCarError(
                f"The learning rates of the recipe {self.name} fall when validation stops improving, which a change of "
                "the picture size disturbs: train it at one size, without `--progressive`."
            )
        last = 1 - 1 / self.epochs  # a run of few epochs also ends with the largest pictures
        shares = ((0.0, 1 / 2), (min(0.38, last), 2 / 3), (min(0.7, last), 1))
        return replace(self, sizes=tuple((start, round(share * self.eval_size)) for start, share in shares))

    def eval_size_at(self, epoch: int) -> int:
        """Side of the validation pictures after an epoch: `eval_size` scaled like the training pictures, in pixels."""
        return round(self.eval_size * self.size_at(epoch) / self.sizes[-1][1])


def monitor_mode(monitor: str) -> Literal["min", "max"]:
    """Whether the highest or the lowest value of a column of the training log is the best."""
    return "min" if monitor.endswith("loss") else "max"


def ancestors(run: dict) -> list[dict]:
    """The models that a run continues, as its `run.json` has them: the last one first, its own ancestors after it."""
    return [parent, *ancestors(parent)] if (parent := run.get("parent")) else []


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
    summary=(
        "A ResNet50: high learning rates, progressive picture sizes, MixUp and CutMix, evaluated above its training "
        "size."
    ),
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
    summary="The technical report's recipe: a timm ResNet50 trained with AdamW on one cycle, CLAHE, coarse dropout.",
    architecture="timm/resnet50",
    head="two_layer",
    dropout=0.2,
    input_dropout=0.3,
    train_share=0.85 / 0.9,
    conv_rms=0.08,  # 0.02 learns less in the first epochs: reports/report_conv_rms.md
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
    summary="Bilinear pooling over a ResNet50 with self-attention; layer2 to layer4 are trained.",
    head="bilinear",
    dropout=0.6,
    frozen=("conv1", "bn1", "layer1"),
    train_share=0.7 / 0.9,
    conv_rms=0.02,
    crop_scale=(0.7, 1.0),
    jitter=(0.2, 0.2, 0.2, 0.1),
    optimizer="adamw",  # Adam learns half as much in the first epoch: reports/bilinear_optimizer.md
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
    summary="A residual CNN of ResNet-18's shape from random weights: strong augmentation, MixUp, balanced sampling.",
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

FLAGSHIP_ROBUST = replace(
    FLAGSHIP,
    name="flagship_robust",
    summary=(
        "The published model: continues the flagship with larger pictures, corrupted ones, cars pasted onto other "
        "photos, averaged weights. Started with `--init <model folder of the flagship>`."
    ),
    frozen=("conv1", "bn1", "layer1", "layer2"),
    conv_rms=None,  # the initial weights have been rescaled
    sizes=((0.0, 160), (0.5, 192)),
    eval_size=208,  # 92.8 % of the validation pictures; 91.8 % at 224 px
    crop_scale=(0.4, 1.0),
    corruption=0.5,
    paste=0.25,
    mix_until=0.75,
    learning_rates=(("", 0.03),),
    monitor="epoch",  # averaged weights of different picture sizes cannot be compared: the last ones are published
    epochs=10,
    ema_decay=0.999,
)

LITE = replace(
    FLAGSHIP,
    name="lite",
    summary="The flagship's training on EfficientNet-Lite2, with a fifth of the weights.",
    architecture="timm/tf_efficientnet_lite2",
    conv_rms=None,
    learning_rates=(("fc", 0.2), ("", 0.03)),  # depthwise layers diverge at a ResNet's rates
)

LITE_ROBUST = replace(
    FLAGSHIP_ROBUST,
    name="lite_robust",
    summary=FLAGSHIP_ROBUST.summary.replace("The published model: c", "C").replace("flagship", "lite"),
    architecture=LITE.architecture,
    frozen=LITE.frozen,
    learning_rates=(("fc", 0.02), ("", 0.01)),
)

ALL = (TWINCAR, REPORT, BILINEAR, SCRATCH, FLAGSHIP, FLAGSHIP_ROBUST, LITE, LITE_ROBUST)
RECIPES = {recipe.name: recipe for recipe in ALL}

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
