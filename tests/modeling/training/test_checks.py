"""What a training refuses before its first batch, in one sentence, and that it leaves the network unchanged."""

from dataclasses import replace

import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from twincar.cli import app
from twincar.config import TwinCarError
from twincar.data.table import load_table
from twincar.modeling.networks import architectures
from twincar.modeling.training import checks
from twincar.modeling.training.lightning_module import CarClassifier
from twincar.modeling.training.recipes import RECIPES, Recipe
from twincar.modeling.training.train import train

FLAGSHIP = RECIPES["flagship"]


def command(data, out, *options):
    options = [*options, "--data", data, "--out", out, "--init", "none", "--workers", "0"]
    return CliRunner().invoke(app, ["train", *map(str, options)])


def test_a_warm_up_of_exactly_one_step(data, tmp_path):
    """18 pictures are one batch, so this run has five steps; OneCycleLR divided by zero."""
    recipe = replace(FLAGSHIP, architecture="timm/resnet10t", epochs=5, sizes=((0.0, 32),), eval_size=32)
    train(recipe, load_table(data), tmp_path / "run", init="none", workers=0, accelerator="cpu", progress=False)
    log = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert len(log) == 5
    assert log["lr_body"].iloc[0] > 0.5 * max(rate for _, rate in FLAGSHIP.learning_rates) / 2 > log["lr_body"].iloc[-1]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--backbone resnet10t --batch-size 1 --size 32", "pass `--batch-size 2` or more"),
        ("--accelerator gpu", "omit these options"),
        ("--accelerator cpu --devices 0", "`Trainer(devices=0)`"),
        ("--accelerator cpu --devices 0,1", "omit these options"),
        ("--accelerator abacus", "omit these options"),
        ("--precision 64-true", "choose from ('32-true', 'bf16-mixed', '16-mixed')"),
        ("--backbone visformer_tiny --size 160", "pass `--size 224`"),
        ("--backbone crossvit_tiny_240", "(N, C, h, w)): choose another `--backbone`, such as"),
    ],
)
def test_refusals_are_one_sentence_before_the_first_batch(options, message, data, tmp_path):
    if "gpu" in options and torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    done = command(data, tmp_path / "run", "--recipe", "flagship", *options.split())
    assert done.exit_code == 2, done.output
    assert len(done.output.splitlines()) == 1
    assert message in done.output
    assert not (tmp_path / "run" / "run.json").exists()


def test_a_single_class_is_refused(data, tmp_path):
    table = load_table(data).assign(class_name="images", label=0)
    with pytest.raises(TwinCarError, match="All train pictures are of one class, 'images', but"):
        train(FLAGSHIP, table, tmp_path / "run", init="none", progress=False)
    assert not (tmp_path / "run").exists()


def test_a_single_picture_is_refused(data):
    module = CarClassifier(architectures.build("resnet18", 2), FLAGSHIP, 2)
    recipe = replace(FLAGSHIP, sizes=((0.0, 32),), eval_size=32)
    with pytest.raises(TwinCarError, match="more than one train picture"):
        checks.check_network(module, recipe, pictures=1)


def test_checks_change_neither_weights_nor_random_numbers():
    network = architectures.build("resnet18", 3, dropout=0.5)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = torch.get_rng_state()
    recipe = replace(FLAGSHIP, sizes=((0.0, 32), (0.5, 64)), eval_size=64)
    checks.check_network(CarClassifier(network, recipe, 3), recipe, 100)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


# Small backbones of many families, with the picture size that they need if they do not take any.
ANY_SIZE = (
    "convnext_atto", "deit_tiny_patch16_224", "densenet121", "dla34", "edgenext_xx_small", "efficientvit_b0",
    "ghostnet_050", "mambaout_femto", "mobilevit_xxs", "poolformer_s12", "pvt_v2_b0", "regnetx_002", "rexnet_100",
)  # fmt: skip
ONE_SIZE = {"beit_base_patch16_224": 224, "cait_xxs24_224": 224, "visformer_tiny": 224, "maxvit_pico_rw_256": 256}
NO_MAP = ("crossvit_tiny_240", "efficientvim_m1", "twins_svt_small", "gmixer_12_224")


@pytest.mark.slow
@pytest.mark.parametrize("name", [*ANY_SIZE, *ONE_SIZE, *NO_MAP])
def test_a_backbone_of_any_family_is_accepted_or_refused_with_what_fits(name):
    recipe = Recipe("mine", "", architecture=f"timm/{name}", sizes=((0.0, 160),), eval_size=160)
    module = CarClassifier(architectures.build(num_classes=3, **recipe.network()), recipe, 3)
    if name in ANY_SIZE:
        checks.check_network(module, recipe, 100)
        return
    with pytest.raises(TwinCarError) as refused:
        checks.check_network(module, recipe, 100)
    message, size = str(refused.value), ONE_SIZE.get(name)
    assert (f"pass `--size {size}`." if size else "choose another `--backbone`") in message
    assert "\n" not in message
    if size:
        checks.check_network(module, replace(recipe, sizes=((0.0, size),), eval_size=size), 100)
