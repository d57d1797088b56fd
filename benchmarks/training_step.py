"""How long does a training step take?

python -m benchmarks.training_step --data data

The recipe `twincar` on one batch of 32 pictures of 224 px: forward, backward, optimiser. The seeds trained in single
precision, with all batch norms in train mode; their frozen layers got gradients as well, or, in the second line, did
not. The floor is the operations of the recipe's step at the rate of a large matrix product.
"""

import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks import common
from twincar.modeling.training.lightning_module import CarClassifier
from twincar.modeling.training.recipes import RECIPES
from twincar.modeling.training.train import default_precision

RECIPE = RECIPES["twincar"]


def seeds_step(gradients: bool):
    network = common.seed_network().train()
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(gradients or network.stage(name) not in RECIPE.frozen)
    learnt = [p for name, p in network.named_parameters() if network.stage(name) not in RECIPE.frozen]
    optimizer = torch.optim.Adam(learnt, lr=1e-4)
    loss = torch.nn.CrossEntropyLoss(label_smoothing=RECIPE.label_smoothing)

    def step(images, labels) -> float:
        optimizer.zero_grad()
        found = loss(network(images.float() / 255), labels)
        found.backward()
        optimizer.step()
        return found.item()  # as their progress bars read it, every step

    return step


def our_step(precision: str):
    task = CarClassifier(common.seed_network().to(memory_format=torch.channels_last), RECIPE, 196)
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
    count = common.SEED_BATCH // 4 if options.quick else common.SEED_BATCH
    images = torch.randint(0, 256, (count, 3, common.SEED_SIZE, common.SEED_SIZE), dtype=torch.uint8)
    labels = torch.randint(0, 196, (count,))
    precision = default_precision()
    ours = our_step(precision)
    steps = {
        "the seeds' loop": seeds_step(gradients=True),
        "the seeds' loop, nothing frozen has gradients": seeds_step(gradients=False),
        f"TwinCar ({precision})": ours,
    }
    ways = {name: lambda step=step: step(images, labels) for name, step in steps.items()}
    seconds = common.in_turns(ways, options.rounds(5), warm_up=1)
    with FlopCounterMode(display=False) as counter:
        ours(images, labels)
    floor = counter.get_total_flops() / common.matmul_rate("bf16" if precision == "bf16-mixed" else "f32")
    slowest = max(seconds["the seeds' loop"], 1e-9)
    rows = [
        [name, f"{taken:.2f} s", f"{count / taken:.1f}", f"{slowest / taken:.2f}", f"{taken / floor:.1f}"]
        for name, taken in seconds.items()
    ]
    columns = ["way", "median step", "pictures/s", "times the seeds'", "floors"]
    return common.table(columns, rows) + f"\n\nBatches of {count}. The floor is {floor:.2f} s."


if __name__ == "__main__":
    common.run(main)
