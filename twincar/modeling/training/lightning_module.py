"""The LightningModule: loss, optimiser, schedule, metrics of a recipe. `train.py` runs it."""

import time
from typing import NoReturn

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn
from torchvision.transforms import v2

from twincar.config import TwinCarError
from twincar.features.transforms import normalize
from twincar.modeling.evaluation.metrics import metrics
from twincar.modeling.networks.losses import AngularMargin
from twincar.modeling.training.recipes import Recipe, best_is


def epoch_seed(seed: int, epoch: int) -> int:
    """All chance of an epoch hangs on its number: a resumed run repeats what the killed one would have done."""
    return seed + 1000 * epoch


class DivergedError(TwinCarError):
    """The training has come to numbers that are none, in one sentence."""


class CarClassifier(LightningModule):
    """Trains `network` as `recipe` says.

    A training batch is (images (N, 3, H, W) uint8, labels (N,)); a validation batch has a third member, the rows of
    the pictures, so that what several processes saw is put together without counting a padded picture twice.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, num_classes: int, seed: int = 42):
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
        self._seen: dict[str, list[Tensor]] = {"train": [], "val": []}
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(network.stage(name) not in recipe.frozen)

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def normalize(self, images: Tensor) -> Tensor:
        return normalize(images, self.network.mean, self.network.std)

    def on_train_epoch_start(self) -> None:
        self._started = time.monotonic()
        torch.manual_seed(epoch_seed(self.seed, self.current_epoch) + self.global_rank)
        self.set_modes()

    def set_modes(self) -> None:
        """Train mode for what is trained; the batch norms of what is frozen keep the statistics they came with."""
        self.network.train()
        for module in self.network.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()

    def training_step(self, batch: tuple[Tensor, Tensor], index: int) -> Tensor:
        images, labels = batch
        targets = labels
        images = self.normalize(images)
        if self.mix is not None and self.current_epoch < self.recipe.mix_until * self.recipe.epochs:
            images, targets = self.mix(images, labels)
        logits = self.network(images).float()
        # A mixed picture has two right classes, and no one angle to widen.
        widened = self.margin(logits, labels) if self.margin and targets.ndim == 1 else logits
        loss = self.loss(widened, targets)
        if not loss.isfinite():
            self.stop_for(f"The loss became {loss.item()} in epoch {self.current_epoch + 1}, batch {index + 1}")
        self.log("train_loss", loss, on_step=False, on_epoch=True, prog_bar=True, batch_size=len(labels))
        self._seen["train"].append(torch.stack([logits.detach().argmax(1), labels], 1))
        return loss

    def stop_for(self, what: str) -> NoReturn:
        """End the training before the next checkpoint is written, so that the last one is sound."""
        rates = ", ".join(f"{group['lr']:.3g}" for group in self.optimizers().param_groups)
        raise DivergedError(
            f"{what}, at a learning rate of {rates}: the weights of the last whole epoch and of the best are kept. The "
            "same command would end so again: train with a lower rate or another `--seed`, into another `--out`."
        )

    def on_train_epoch_end(self) -> None:
        guess, labels = torch.cat(self._seen["train"]).unbind(1)
        self._seen["train"].clear()
        # On the pictures as they were trained on: augmented, and mixed ones judged by their first label.
        accuracy = guess.eq(labels).float().mean()
        self.log("train_top1", accuracy, sync_dist=True)
        self.log("image_size", float(self.recipe.size_at(self.current_epoch)), sync_dist=True)
        self.log("epoch_seconds", time.monotonic() - self._started, sync_dist=True)
        optimizer = self.optimizers()
        for group in optimizer.param_groups:
            self.log(f"lr_{group['name']}", group["lr"], sync_dist=True)

    def validation_step(self, batch: tuple[Tensor, Tensor, Tensor], index: int) -> None:
        images, labels, rows = batch
        logits = self.network(self.normalize(images)).float()
        self._seen["val"].append(torch.cat([logits, labels[:, None].float(), rows[:, None].float()], 1))

    def on_validation_epoch_end(self) -> None:
        seen = torch.cat(self._seen["val"])
        self._seen["val"].clear()
        if self.trainer.world_size > 1:
            seen = self.all_gather(seen).flatten(0, 1)
        rows = seen[:, -1]
        order = rows.argsort()
        first = torch.ones_like(rows, dtype=torch.bool)
        first[1:] = rows[order][1:] != rows[order][:-1]
        seen = seen[order][first]
        logits, labels = seen[:, :-2], seen[:, -2].long()
        if not logits.isfinite().all():
            self.stop_for(f"The network answers with numbers that are none after epoch {self.current_epoch + 1}")
        self.log("val_loss", nn.functional.cross_entropy(logits, labels), prog_bar=True, sync_dist=True)
        for name, value in metrics(logits, labels).items():
            self.log(f"val_{name}", value, prog_bar=name in ("top1", "f1_macro"), sync_dist=True)

    def configure_optimizers(self):
        recipe = self.recipe
        groups: dict[str, dict] = {}
        for name, parameter in self.network.named_parameters():
            if not parameter.requires_grad:
                continue
            prefix, rate = next(pair for pair in recipe.learning_rates if self.network.stage(name).startswith(pair[0]))
            group = groups.setdefault(prefix, {"name": prefix or "body", "params": [], "lr": rate})
            group["params"].append(parameter)
        # fused: one pass over the weights instead of five
        options = {"weight_decay": recipe.weight_decay, "fused": self.device.type in ("cpu", "cuda", "mps")}
        kinds = {
            "sgd": lambda g: torch.optim.SGD(g, lr=0.1, momentum=0.9, nesterov=True, **options),
            "adam": lambda g: torch.optim.Adam(g, **options),
            "adamw": lambda g: torch.optim.AdamW(g, **options),
        }
        optimizer = kinds[recipe.optimizer](list(groups.values()))
        if recipe.schedule == "one_cycle":
            schedule = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in groups.values()],
                total_steps=int(self.trainer.estimated_stepping_batches),
                pct_start=recipe.warmup,
                cycle_momentum=recipe.cycle_momentum,
            )
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}
        schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, best_is(recipe.monitor), factor=recipe.plateau_factor, patience=recipe.plateau_patience
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "monitor": recipe.monitor}}
