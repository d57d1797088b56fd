"""Checks before a training: its classes, its device, and one batch through its network at each picture size.

Each of them would otherwise end the run in its first epoch, with an error of torch, timm or Lightning.
"""

import copy
import logging
import warnings
from collections.abc import Iterable

import pandas as pd
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer

from twincar.config import TwinCarError
from twincar.modeling.networks.architectures import TIMM, Network
from twincar.modeling.training.lightning_module import CarClassifier
from twincar.modeling.training.recipes import Recipe
from twincar.text import display_name

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed", "32", "bf16", "16")  # those of Lightning with weights in float32
STRIDE = 32  # sizes that are multiples of it suit most backbones
ALTERNATIVES = "convnext_tiny, efficientnet_b0 or resnet50d"


def check_classes(table: pd.DataFrame) -> None:
    """Check that a table has train pictures of at least two classes.

    Raises:
        TwinCarError: It has not.
    """
    names = table.loc[table["split"] == "train", "class_name"].unique()
    if len(names) < 2:
        raise TwinCarError(
            f"All train pictures are of one class, {display_name(names[0])!r}, but a classifier needs at least two: "
            "run `twincar prepare` on a folder that contains one folder of pictures per class."
        )


def check_device(accelerator: str, devices: int | str, nodes: int, precision: str) -> None:
    """Check that Lightning finds the devices, and that training supports the precision.

    Raises:
        TwinCarError: One of them is not as it should be; of devices the message contains Lightning's.
    """
    if precision not in PRECISIONS:
        raise TwinCarError(f"Training does not support the precision {precision!r}: choose from {PRECISIONS[:3]}.")
    logger = logging.getLogger("lightning.pytorch")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            Trainer(
                accelerator=accelerator,
                devices=devices,
                num_nodes=nodes,
                precision=precision,  # type: ignore[arg-type]  # a name, checked by Lightning
                logger=False,
                enable_checkpointing=False,
                enable_progress_bar=False,
            )
    except (MisconfigurationException, ImportError, RuntimeError, TypeError, ValueError) as error:
        raise TwinCarError(
            f"This machine cannot train with `--accelerator {accelerator} --devices {devices} --precision {precision}` "
            f"({_sentence(error)}): omit these options to use the fastest device that there is."
        ) from error
    finally:
        logger.setLevel(level)


def check_network(module: CarClassifier, recipe: Recipe, pictures: int) -> None:
    """Check that the network accepts the recipe's picture sizes and batches, with one black batch of each size.

    Args:
        module: The network in the modes of its training; it is left unchanged.
        recipe: The recipe.
        pictures: Number of train pictures.

    Raises:
        TwinCarError: It does not; the message names a size or a batch size that it accepts, if there is one.
    """
    trial = copy.deepcopy(module)  # batch norms change their statistics
    batch = min(recipe.batch_size, pictures, 2)
    epochs = range(recipe.epochs)
    train_sizes = sorted({recipe.size_at(epoch) for epoch in epochs})
    eval_sizes = sorted({recipe.eval_size_at(epoch) for epoch in epochs} | {recipe.eval_size})
    for size in (*eval_sizes, *train_sizes):
        training = size in train_sizes
        error = _failure(trial, size, batch if training else 1, training)
        if error is None:
            continue
        if training and batch == 1 and not _failure(trial, size, 2, training):
            raise TwinCarError(
                f"This network cannot be trained on batches of one picture of {size} px ({_sentence(error)}): "
                + ("pass `--batch-size 2` or more." if pictures > 1 else "the table needs more than one train picture.")
            ) from error
        raise TwinCarError(_unsuitable(trial, recipe, size, max(batch, 2), error)) from error


def _failure(module: CarClassifier, size: int, batch: int, training: bool) -> Exception | None:
    """The error of a network on a batch of black pictures of a size, None if it returns features and logits."""
    network = module.network
    if training:
        module.set_modes()
    else:
        network.eval()
    images = torch.zeros(batch, 3, size, size)
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]):
            features = network.forward_features(images)
            if not isinstance(features, torch.Tensor) or features.ndim != 4 or features.shape[1] != network.width:
                raise NotImplementedError("its features are not one map of shape (N, C, h, w)")
            try:
                network.forward_head(features)
            except RuntimeError as error:
                raise NotImplementedError("its head does not accept a map of features") from error
    except Exception as error:  # of any kind: a network is code of others
        return error
    return None


def _unsuitable(module: CarClassifier, recipe: Recipe, size: int, batch: int, error: Exception) -> str:
    """The sentence for a network that does not accept pictures of a size, with a size that it accepts."""
    name = recipe.architecture.removeprefix(TIMM)
    final = error
    for other in _other_sizes(module.network, recipe.eval_size):
        reason = _failure(module, other, batch, True) or _failure(module, other, 1, False)
        if reason is None:
            return (
                f"The network {name} does not accept the pictures of {size} px of the recipe {recipe.name} "
                f"({_sentence(error)}): pass `--size {other}`."
            )
        final = reason  # at its own size, the last one
    return (
        f"The network {name} cannot be trained ({_sentence(final)}): choose another `--backbone`, such as "
        f"{ALTERNATIVES}."
    )


def _other_sizes(network: Network, size: int) -> Iterable[int]:
    """Picture sizes to propose instead: the next multiple of STRIDE, and the one that timm trained the backbone at."""
    yield -(-size // STRIDE) * STRIDE
    for module in network.modules():
        if cfg := getattr(module, "pretrained_cfg", None):
            yield cfg["input_size"][-1]
            return


def _sentence(error: Exception) -> str:
    """The first line of an error's message, or its type, without a period."""
    lines = str(error).strip().splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
