"""Lightning module: loss, optimizer, schedule and metrics of a recipe."""

import math
import time
from typing import Any, NoReturn, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchvision.transforms import v2

from twincar.config import TwinCarError
from twincar.features.transforms import normalize
from twincar.modeling.evaluation.metrics import metrics
from twincar.modeling.networks.architectures import Network
from twincar.modeling.networks.losses import AngularMargin
from twincar.modeling.training.recipes import Recipe, monitor_mode


def epoch_seed(seed: int, epoch: int) -> int:
    """Seed of an epoch, from the run's seed and the epoch only, so that a resumed run equals an uninterrupted one."""
    return seed + 1000 * epoch


class DivergedError(TwinCarError):
    """The loss or the logits became NaN or infinite; the message is for the user."""


class CarClassifier(LightningModule):
    """Trains a network by a recipe.

    A training batch is (images (N, 3, H, W) uint8, labels (N,)). A validation batch has a third member, the rows of the
    pictures, so that the batches of several processes are joined without counting a padded picture twice.

    Args:
        network: The network, with its initial weights.
        recipe: The recipe.
        num_classes: Number of classes.
        seed: Random seed of the run.
    """

    def __init__(self, network: Network, recipe: Recipe, num_classes: int, seed: int = 42):
        super().__init__()
        self.network, self.recipe, self.seed = network, recipe, seed
        self.loss = nn.CrossEntropyLoss(label_smoothing=recipe.label_smoothing)
        self.margin = AngularMargin(recipe.margin) if recipe.margin else None
        mixes: list = []
        if recipe.mixup_alpha:
            mixes.append(v2.MixUp(alpha=recipe.mixup_alpha, num_classes=num_classes))
        if recipe.cutmix_alpha:
            mixes.append(v2.CutMix(alpha=recipe.cutmix_alpha, num_classes=num_classes))
        self.mix = v2.RandomApply([v2.RandomChoice(mixes)], recipe.mix_probability) if mixes else None
        self._outputs: dict[str, list[Tensor]] = {"train": [], "val": []}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(network.stage(name) not in recipe.frozen)

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) normalized images -> (N, num_classes) logits."""
        return self.network(images)

    def normalize(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) uint8 -> float32, normalized as the network expects."""
        return normalize(images, self.network.mean, self.network.std)

    def on_train_epoch_start(self) -> None:
        """Seed the epoch, and set train and eval modes."""
        self._started = time.monotonic()
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch) + self.global_rank)
        self.set_modes()

    def set_modes(self) -> None:
        """Set trained layers to train mode and frozen ones to eval mode, where batch norms keep their statistics."""
        self.network.train()
        for module in self.network.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        """Loss of a batch."""
        images, labels = batch
        targets = labels
        images = self.normalize(images)
        if self.mix is not None and self.current_epoch < self.recipe.mix_until * self.recipe.epochs:
            images, targets = self.mix(images, labels)
        logits = self.network(images).float()
        # A mixed picture has two classes, so there is no single angle to add the margin to.
        shifted = self.margin(logits, labels) if self.margin and targets.ndim == 1 else logits
        loss = self.loss(shifted, targets)
        if not loss.isfinite():
            self._raise_diverged(f"The loss became {loss.item()} in epoch {self.current_epoch + 1}, batch {index + 1}")
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        self._outputs["train"].append(torch.stack([logits.detach().argmax(1), labels], 1))
        return loss

    def _raise_diverged(self, what: str) -> NoReturn:
        """End the training before the next checkpoint is written, so that the last one has finite weights."""
        rates = ", ".join(f"{group['lr']:.3g}" for group in self.trainer.optimizers[0].param_groups)
        raise DivergedError(
            f"{what}, at a learning rate of {rates}: the checkpoints of the last complete epoch and of the best epoch "
            "are kept. The same command would diverge again: train with a lower learning rate or another `--seed`, and "
            "another `--out`."
        )

    def on_train_epoch_end(self) -> None:
        """Log the accuracy, picture size, duration and learning rates of the epoch."""
        predicted, labels = torch.cat(self._outputs["train"]).unbind(1)
        self._outputs["train"].clear()
        # On the pictures as they were trained on: augmented, and mixed ones compared with their first label.
        accuracy = predicted.eq(labels).float().mean()
        self.log("train_top1", accuracy, sync_dist=True)
        self.log("image_size", float(self.recipe.size_at(self.current_epoch)), sync_dist=True)
        self.log("epoch_seconds", time.monotonic() - self._started, sync_dist=True)
        for group in self.trainer.optimizers[0].param_groups:
            self.log(f"lr_{group['name']}", group["lr"], sync_dist=True)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        """Collect the logits, labels and rows of a batch."""
        images, labels, rows = batch
        logits = self.network(self.normalize(images)).float()
        self._outputs["val"].append(torch.cat([logits, labels[:, None].float(), rows[:, None].float()], 1))

    def on_validation_epoch_end(self) -> None:
        """Log the loss and metrics over the pictures of all processes."""
        outputs = torch.cat(self._outputs["val"])
        self._outputs["val"].clear()
        if self.trainer.world_size > 1:
            outputs = cast(Tensor, self.all_gather(outputs)).flatten(0, 1)
        rows = outputs[:, -1]
        order = rows.argsort()
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[order][1:] != rows[order][:-1]
        outputs = outputs[order][first]  # each picture once
        logits, labels = outputs[:, :-2], outputs[:, -2].long()
        if not logits.isfinite().all():
            self._raise_diverged(f"The logits became NaN or infinite after epoch {self.current_epoch + 1}")
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), prog_bar=True, sync_dist=True)
        for name, value in metrics(logits, labels).items():
            self.log(f"val_{name}", value, prog_bar=name in ("top1", "f1_macro"), sync_dist=True)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Optimizer with a parameter group for each learning rate of the recipe, and the schedule."""
        recipe = self.recipe
        groups: dict[str, dict] = {}
        for name, parameter in self.network.named_parameters():
            if not parameter.requires_grad:
                continue
            prefix, rate = next(pair for pair in recipe.learning_rates if self.network.stage(name).startswith(pair[0]))
            group = groups.setdefault(prefix, {"name": prefix or "body", "params": [], "lr": rate})
            group["params"].append(parameter)
        # fused: one kernel instead of five passes over the weights
        fused = self.device.type in ("cpu", "cuda", "mps")
        options: dict[str, Any] = {"weight_decay": recipe.weight_decay, "fused": fused}
        kinds = {
            "sgd": lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True, **options),
            "adam": lambda g: torch.optim.Adam(g, **options),
            "adamw": lambda g: torch.optim.AdamW(g, **options),
        }
        optimizer = kinds[recipe.optimizer](list(groups.values()))
        if recipe.schedule == "one_cycle":
            one_cycle = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in groups.values()],
                total_steps=int(self.trainer.estimated_stepping_batches),
                # It divides by zero if the warm-up is exactly one step; the next smaller number avoids that.
                pct_start=math.nextafter(recipe.warmup, 0),
                cycle_momentum=recipe.cycle_momentum,
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": one_cycle, "interval": "step"}}
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, monitor_mode(recipe.monitor), factor=recipe.plateau_factor, patience=recipe.plateau_patience
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": plateau, "monitor": recipe.monitor}}
