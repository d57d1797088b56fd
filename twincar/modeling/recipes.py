"""The recipes, as data. `train.py` and `task.py` read them and branch on nothing else.

twincar train --recipe flagship --data data/ --init imagenet --out runs/flagship
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Recipe:
    """How one model is trained. Sizes are pixels, shares and probabilities lie in 0-1, rates are per step.

    frozen : top-level modules without gradient; their batch norms stay in eval mode.
    sizes : (share of all epochs done, side of the training pictures) from small to large; the first share is 0.
    eval_size : side of the pictures at validation and in service. A size above the training size reads better
        (Touvron et al., "Fixing the train-test resolution discrepancy", arXiv:1906.06423).
    eval_flip : the published model reads a photo and its mirror image in one pass and averages their logits.
    mix_probability : share of batches on which MixUp (arXiv:1710.09412) or CutMix (arXiv:1905.04899) is put, one or
        the other with even odds where both have an alpha; no mixing after `mix_until` of all epochs.
    learning_rates : (module prefix, peak rate), first match wins.
    schedule : "plateau" (ReduceLROnPlateau on `monitor`) or "one_cycle" (arXiv:1708.07120, cosine down to nearly 0).
    """

    name: str
    summary: str
    architecture: str = "resnet50"
    head: str = "linear"
    dropout: float = 0.0
    frozen: tuple[str, ...] = ()

    sizes: tuple[tuple[float, int], ...] = ((0.0, 224),)
    eval_size: int = 224
    eval_flip: bool = False
    crop_scale: tuple[float, float] = (0.5, 1.0)
    crop_ratio: tuple[float, float] = (3 / 4, 4 / 3)
    rotation: float = 0.0  # degrees to either side
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)  # brightness, contrast, saturation, hue
    blur: float = 0.0  # probability
    mixup_alpha: float = 0.0
    cutmix_alpha: float = 0.0
    mix_probability: float = 0.0
    mix_until: float = 1.0

    balanced_sampler: bool = False
    label_smoothing: float = 0.1
    optimizer: str = "sgd"
    learning_rates: tuple[tuple[str, float], ...] = (("", 0.01),)
    weight_decay: float = 0.0
    schedule: str = "one_cycle"
    warmup: float = 0.2  # share of the steps
    plateau_factor: float = 0.1
    plateau_patience: int = 2
    monitor: str = "val_f1_macro"
    patience: int | None = None  # epochs without a better `monitor`; None never stops early
    epochs: int = 25
    batch_size: int = 32

    def size_at(self, epoch: int) -> int:
        """Side of the training pictures in this epoch, counted from 0."""
        return [size for share, size in self.sizes if epoch >= share * self.epochs][-1]

    def eval_size_at(self, epoch: int) -> int:
        """Side of the validation pictures after this epoch: `eval_size` in the end, in proportion before."""
        return round(self.eval_size * self.size_at(epoch) / self.sizes[-1][1])


TWINCAR = Recipe(
    name="twincar",
    summary="The original TwinCar: ResNet50 with conv1 to layer2 frozen, a two-layer head, class-balanced sampling.",
    head="two_layer",
    dropout=0.2,
    frozen=("conv1", "bn1", "layer1", "layer2"),
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

RECIPES = {recipe.name: recipe for recipe in (TWINCAR, FLAGSHIP)}
