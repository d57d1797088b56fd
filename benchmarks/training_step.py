"""Time of a training step.

python -m benchmarks.training_step --data data

The recipe `twincar` on one batch of 32 pictures of 224 px: forward, backward, optimizer. The original system trains in
single precision, with all batch norms in train mode, and with gradients for frozen layers too (first row) or not
(second row). The lower bound is the number of operations of the step at the rate of a large matrix product.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import common
from twincar.modeling.training.lightning_module import CarClassifier
from twincar.modeling.training.recipes import RECIPES
from twincar.modeling.training.train import default_precision

RECIPE = RECIPES["twincar"]


def original_step(gradients: bool):
    """Return the training step of the original system; `gradients`: frozen layers get gradients too."""
    network = common.original_network().train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(gradients or network.stage(name) not in RECIPE.frozen)
    trained = [p for name, p in network.named_parameters() if network.stage(name) not in RECIPE.frozen]
    optimizer = torch.optim.Adam(trained, lr=1e-4)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=RECIPE.label_smoothing)

    def step(images, labels) -> float:
        optimizer.zero_grad()
        found = loss(network(images.float() / 255), labels)
        found.backward()
        optimizer.step()
        return found.item()  # read in every step, as by their progress bars

    return step


def twincar_step(precision: str):
    """Return the training step of TwinCar."""
    task = CarClassifier(common.original_network().to(memory_format=torch.channels_last), RECIPE, 196)
    task.set_modes()
    optimizer = task.configure_optimizers()["optimizer"]

    def step(images, labels):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            found = task.loss(task(task.normalize(images)).float(), labels)
        found.backward()
        optimizer.step()
        optimizer.zero_grad()
        return found.detach()

    return step


def main(options: common.Options) -> str:
    """Time the steps on random pictures."""
    count = common.ORIGINAL_BATCH // 4 if options.quick else common.ORIGINAL_BATCH
    images = torch.randint(0, 256, (count, 3, common.ORIGINAL_SIZE, common.ORIGINAL_SIZE), dtype=torch.uint8)
    labels = torch.randint(0, 196, (count,))
    precision = default_precision()
    current = twincar_step(precision)
    steps = {
        "original": original_step(gradients=True),
        "original, no gradients for frozen layers": original_step(gradients=False),
        f"TwinCar ({precision})": current,
    }
    variants = {name: lambda step=step: step(images, labels) for name, step in steps.items()}
    seconds = common.interleaved_medians(variants, options.rounds(5), warm_up=1)
    with FlopCounterMode(display=False) as counter:
        current(images, labels)
    bound = counter.get_total_flops() / common.matmul_rate("bf16" if precision == "bf16-mixed" else "f32")
    baseline = seconds["original"]
    rows = [
        [name, f"{taken:.2f} s", f"{count / taken:.1f}", f"{baseline / taken:.2f}", f"{taken / bound:.1f}"]
        for name, taken in seconds.items()
    ]
    columns = ["variant", "median step", "pictures/s", "speedup", "× lower bound"]
    return common.table(columns, rows) + f"\n\nBatches of {count}. The lower bound is {bound:.2f} s."


if __name__ == "__main__":
    common.run(main)
