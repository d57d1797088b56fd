"""Recipes and training: frozen layers, logs, early stopping, several processes, the picture cache."""

import json
import os
import pickle
import subprocess
import sys
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import draw_car
from twincar import Predictor
from twincar.cli import app
from twincar.config import TwinCarError
from twincar.data.table import load_table
from twincar.features.cache import cached_pictures
from twincar.features.photo import crop_box
from twincar.features.transforms import augmentation, normalize, squash, to_batch
from twincar.modeling.evaluation.evaluate import evaluate
from twincar.modeling.hub import model_folder
from twincar.modeling.networks import architectures
from twincar.modeling.publishing.publish import publish
from twincar.modeling.training.data_module import PictureDataset
from twincar.modeling.training.lightning_module import CarClassifier
from twincar.modeling.training.recipes import RECIPES
from twincar.modeling.training.train import train

# Small networks and pictures, so that two cores train a recipe in seconds.
SMALL = {"sizes": ((0.0, 48), (0.5, 64)), "eval_size": 64, "batch_size": 8}
BACKBONES = {"timm/resnet50": "timm/resnet10t", "timm/tf_efficientnet_lite2": "timm/tf_efficientnet_lite0"}
CALM = {"jitter": (0, 0, 0, 0), "crop_scale": (0.9, 1.0), "rotation": 0, "shift": 0, "zoom": 0, "shear": 0, "clahe": 0,
        "blur": 0, "grey": 0, "erasing": 0, "hole": 0, "corruption": 0, "paste": 0,
        "mix_probability": 0}  # fmt: skip


def small(name: str, **changes):
    recipe = RECIPES[name]
    backbone = {"architecture": BACKBONES.get(recipe.architecture, "resnet18")}
    return replace(recipe, **(SMALL | backbone | changes))


def run(recipe, data, out, **options):
    options = {"init": "none", "precision": "32-true", "workers": 0, "accelerator": "cpu", "progress": False} | options
    return train(recipe, load_table(data), out, cache=data / "cache", **options)


def quick_batch_norm(build):
    """`architectures.build` with running statistics that converge in 24 steps instead of hundreds."""

    def built(*arguments, **options):
        network = build(*arguments, **options)
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = 0.5
        return network

    return built


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "flagship" else pytest.mark.slow) for name in sorted(RECIPES)],
)
def test_a_recipe_overfits_publishes_and_predicts(name, data, tmp_path, monkeypatch):
    """Its own head, loss, optimizer, schedule and sampler, on a small backbone with random weights."""
    monkeypatch.setattr(architectures, "build", quick_batch_norm(architectures.build))
    rates, optimizer = {"sgd": 0.02, "adam": 1e-3, "adamw": 1e-3}, RECIPES[name].optimizer
    recipe = small(
        name, epochs=24, sizes=((0.0, 48), (0.25, 64)), batch_size=18, learning_rates=(("", rates[optimizer]),),
        frozen=(), train_share=1.0, dropout=0.0, input_dropout=0.0, patience=None, plateau_patience=4, **CALM,
    )  # fmt: skip
    recipe = replace(recipe, ema_decay=0.5 if recipe.ema_decay else 0.0)  # of 24 steps, not thousands
    best = run(recipe, data, tmp_path / "run")
    best.with_name("last.ckpt").replace(best)  # six val pictures do not measure overfitting
    log = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(log["epoch"]) == list(range(24))
    assert [log["image_size"].iloc[row] for row in (0, -1)] == [48, 64]
    wanted = "loss top1 top3 top5 precision_macro precision_weighted recall_macro recall_weighted f1_macro f1_weighted "
    wanted += "hamming_loss kappa mcc jaccard_macro balanced_accuracy"
    assert {"train_loss", "train_top1"} | {f"val_{metric}" for metric in wanted.split()} <= set(log.columns)
    assert log.drop(columns="epoch").notna().all(axis=None)
    assert json.loads((tmp_path / "run" / "recipe.json").read_text()) == json.loads(json.dumps(asdict(recipe)))

    table = load_table(data)
    result = publish(tmp_path / "run", table, tmp_path / "model", progress=False)
    predictor = Predictor.from_pretrained(tmp_path / "model")
    assert predictor.config["scores"]["top1"] == result.scores["top1"]
    assert predictor.flip == recipe.eval_flip
    training = evaluate(predictor, table, "train", progress=False)
    assert training.scores["top1"] == 1.0, "it overfits the training pictures"

    trained = architectures.build(num_classes=3, **recipe.network())
    model_folder.checkpoint_network(tmp_path / "run" / "checkpoints" / "best.ckpt", trained)
    answer = predictor(table["path"][0])
    images = to_batch([squash(answer.photo, 64)], trained.mean, trained.std)
    with torch.no_grad():
        own = trained(images)
    if type(trained.fc) is torch.nn.Linear:  # its weights hold the temperature, for loaders that know none
        assert predictor.calibration.temperature == 1
        published = torch.from_numpy(answer.logits)
        own *= published.norm() / own.norm()
        np.testing.assert_allclose(published, own[0], atol=0.05 * float(published.abs().max()))
    expected = predictor.calibration(own).softmax(1)[0].numpy()
    np.testing.assert_allclose(answer.probabilities, expected, atol=0.02)  # the published weights are rounded to half
    assert len(answer.top(5)) == 3
    assert answer.overlay().size == answer.photo.size


def test_the_second_stage_continues_a_published_model(data, tmp_path):
    """Corrupted and pasted pictures, averaged weights; a killed run resumes to the same weights."""
    run(small("flagship", epochs=1, sizes=((0.0, 48),), batch_size=18), data, tmp_path / "first")
    publish(tmp_path / "first", load_table(data), tmp_path / "model", progress=False)
    (tmp_path / "no_cars").mkdir()
    for row in range(20):
        noise = np.random.default_rng(row).integers(0, 255, (30, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / "no_cars" / f"{row}.png")
    recipe = small("flagship_robust", epochs=2, sizes=((0.0, 48),), batch_size=6, paste=0.5, corruption=0.5)
    options = {"init": str(tmp_path / "model"), "not_cars": tmp_path / "no_cars"}
    with pytest.raises(TwinCarError, match="--not-cars"):
        run(recipe, data, tmp_path / "refused", init=options["init"])
    run(recipe, data, tmp_path / "whole", **options)
    facts = json.loads((tmp_path / "whole" / "run.json").read_text())
    assert facts["not_cars"] == 20 and facts["parent"]["recipe"] == "flagship" and facts["parent"]["epochs"] == 1

    def state(folder):
        return torch.load(tmp_path / folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]

    before, after = model_folder.load(tmp_path / "model").network.state_dict(), state("whole")
    frozen = [key for key in before if RECIPES["flagship_robust"].frozen and key.startswith("layer1.")]
    assert frozen and all(torch.allclose(before[key], after[f"network.{key}"], rtol=1e-3) for key in frozen)
    moved = (before["fc.weight"] - after["network.fc.weight"]).norm() / before["fc.weight"].norm()
    assert 0 < moved < 0.5, "the head is that of the model, trained on"

    best = torch.load(tmp_path / "whole" / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["epoch"] == recipe.epochs - 1, "the last one"
    publish(tmp_path / "whole", load_table(data), tmp_path / "second", progress=False)
    published = model_folder.load(tmp_path / "second").network.state_dict()["layer4.1.conv1.weight"]
    assert torch.allclose(published, after["network.layer4.1.conv1.weight"], atol=1e-3), "not the best epoch, the last"


def test_a_model_names_all_that_it_continues_and_keeps_the_notice_of_the_first_weights(data, tmp_path):
    weights = "resnet50_imagenet_pqf.safetensors"  # known by this name; its licence asks for the notice
    for number in range(3):
        recipe = small("flagship", epochs=number + 1, sizes=((0.0, 32),), eval_size=32, batch_size=18)
        run(recipe, data, tmp_path / f"run{number}", init=str(tmp_path / f"model{number - 1}") if number else "none")
        if not number:
            facts = json.loads((tmp_path / "run0/run.json").read_text()) | {"init": weights}
            (tmp_path / "run0/run.json").write_text(json.dumps(facts))
        publish(tmp_path / f"run{number}", load_table(data), tmp_path / f"model{number}", progress=False)
        config = model_folder.load(tmp_path / f"model{number}").config
        assert "Permute, Quantize, and Fine-tune" in config["notice"]
    assert config["training"]["start"] == (
        "It was initialized with the weights of TwinCar after 2 epochs of recipe `flagship`, after 1 epoch of recipe "
        "`flagship`, from `resnet50_imagenet_pqf.safetensors`."
    )


def test_twincar_freezes_its_stages(data):
    recipe = RECIPES["twincar"]
    network = architectures.build(num_classes=3, **recipe.network())
    module = CarClassifier(network, recipe, 3)
    free = {name.split(".")[0] for name, parameter in network.named_parameters() if parameter.requires_grad}
    assert free == {"layer3", "layer4", "fc"}
    assert [type(layer).__name__ for layer in network.fc] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert (network.fc[0].in_features, network.fc[0].out_features, network.fc[2].p) == (2048, 512, 0.2)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()
    module.set_modes()
    assert network.layer3.training
    network(torch.rand(4, 3, 64, 64)).sum().backward()
    moved = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert moved
    assert not [name for name in moved if name.split(".")[0] in recipe.frozen]


@pytest.mark.parametrize(
    "options",
    [
        ["--recipe", "bilinear", "--backbone", "resnet10t", "--attention-heads", "2"],
        ["--recipe", "twincar", "--backbone", "vit_tiny_patch16_224", "--margin", "0.3"],
    ],
)
def test_any_backbone_head_and_margin_from_the_command_line(options, data, tmp_path):
    options += ["--data", str(data), "--init", "none", "--out", str(tmp_path / "run"), "--epochs", "1", "--size", "64"]
    done = CliRunner().invoke(app, ["train", *options, "--workers", "0", "--accelerator", "cpu"])
    assert done.exit_code == 0, done.output
    predictor = Predictor.from_pretrained(tmp_path / "run" / "model")
    architecture = predictor.config["architecture"]
    assert architecture["name"] == f"timm/{options[3]}"
    assert (architecture["head"], architecture["attention_heads"]) in (("bilinear", 2), ("cosine", 1))
    answer = predictor(load_table(data)["path"][0])
    assert np.isclose(answer.probabilities.sum(), 1)
    assert answer.overlay().size == answer.photo.size


def test_a_backbone_that_timm_lacks_is_one_sentence(data, tmp_path):
    options = ["--backbone", "resnet51", "--data", str(data), "--init", "none", "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(app, ["train", *options])
    assert done.exit_code == 2
    assert "timm has no backbone 'resnet51'" in done.output


def test_the_recipes_fraction_of_the_train_rows_is_used(data, tmp_path):
    run(small("twincar", epochs=1, train_share=0.67), data, tmp_path / "run")
    pictures = json.loads((tmp_path / "run" / "run.json").read_text())["pictures"]
    assert pictures == {"train": 12, "val": 6, "unused": 6}


def test_early_stopping(data, tmp_path):
    recipe = small("twincar", epochs=20, patience=2, learning_rates=(("", 0.0),), sizes=((0.0, 48),), eval_size=48)
    run(recipe, data, tmp_path / "run")
    log = pd.read_csv(tmp_path / "run" / "metrics.csv")
    # The rate is 0, but batch norm statistics still change, so the best epoch is not always the first.
    assert len(log) == log[recipe.monitor].argmax() + 1 + recipe.patience
    assert len(log) < recipe.epochs


def test_only_epochs_of_the_last_size_stop_the_training_and_are_published(data, tmp_path):
    """Nothing is learned, so every epoch is as good as the first: each size would stop after `patience` epochs."""
    recipe = small("scratch", epochs=12, patience=2, min_delta=100.0, learning_rates=(("", 0.0),), eval_size=64)
    recipe = replace(recipe, sizes=((0.0, 32), (0.5, 64)))
    best = run(recipe, data, tmp_path / "run")
    log = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert log["image_size"].tolist() == [32] * 6 + [64] * (1 + recipe.patience)
    assert torch.load(best, weights_only=True)["epoch"] >= 6
    publish(tmp_path / "run", load_table(data), tmp_path / "model", progress=False)
    assert model_folder.load(tmp_path / "model").config["input"]["size"] == 64


def test_a_run_that_has_not_reached_its_last_size_is_published_at_its_size_so_far(data, tmp_path):
    recipe = small("scratch", epochs=2, sizes=((0.0, 32), (0.9, 64)), eval_size=64)
    run(recipe, data, tmp_path / "run")
    publish(tmp_path / "run", load_table(data), tmp_path / "model", progress=False)
    assert model_folder.load(tmp_path / "model").config["input"]["size"] == 32


@pytest.mark.slow
def test_two_processes_give_one_log_and_one_model(data, tmp_path):
    """Lightning's DDP on two CPU processes, started from the command line."""
    command = [sys.executable, "-m", "twincar", "train", "--recipe", "twincar", "--data", data, "--init", "none"]
    command += ["--out", tmp_path / "run", "--epochs", "1", "--size", "48", "--batch-size", "4", "--workers", "0"]
    command += ["--accelerator", "cpu", "--devices", "2", "--precision", "32-true"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    log = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert len(log) == 1
    assert done.stdout.count("Published in") == 1
    scores = model_folder.load(tmp_path / "run" / "model").config["scores"]
    assert scores["pictures"] == (load_table(data)["split"] == "val").sum()
    assert log["val_top1"][0] == pytest.approx(scores["top1"], abs=0.2)


def test_refusals(data, tmp_path):
    table = load_table(data)
    with pytest.raises(TwinCarError, match="no val pictures"):
        train(small("twincar"), table[table["split"] == "train"], tmp_path / "run")
    with pytest.raises(TwinCarError, match="no weights file"):
        run(small("twincar"), data, tmp_path / "run2", init="nowhere.safetensors")
    with pytest.raises(TwinCarError, match="train at least one epoch"):
        publish(tmp_path, table, tmp_path / "model")
    with pytest.raises(TwinCarError, match="at one size, without `--progressive`"):
        small("bilinear").progressive()


def test_cached_pictures_are_cropped_squashed_and_reused(tmp_path):
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (100, 200, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.png")
    rows = [{"path": tmp_path / "a.png", "x1": 50.0, "y1": 40.0, "x2": 90.0, "y2": 60.0},
            {"path": tmp_path / "a.png", "x1": np.nan, "y1": np.nan, "x2": np.nan, "y2": np.nan}]  # fmt: skip
    table = pd.DataFrame(rows)
    pictures, unreadable = cached_pictures(table, 32, tmp_path / "cache", progress=False)
    assert not unreadable
    cut = picture.crop((50 - 16, 40 - 16, 90 + 16, 60 + 16))
    assert (pictures[0] == squash(cut, 32)).all()
    assert (pictures[1] == squash(picture, 32)).all()
    (file,) = (tmp_path / "cache").glob("[!.]*.npy")
    stamp = file.stat().st_mtime_ns
    cached_pictures(table, 32, tmp_path / "cache", progress=False)
    assert file.stat().st_mtime_ns == stamp
    assert crop_box(picture, (0, 0, 200, 100)).size == (200, 100)


def test_a_photo_with_exif_orientation_is_cached_upright_and_cropped_to_its_box(tmp_path):
    stored = draw_car(1, size=(120, 160))
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees to view
    stored.save(tmp_path / "phone.png", exif=exif)
    boxes = [(40.0, 30.0, 90.0, 120.0), (np.nan,) * 4]
    rows = [dict(zip(("x1", "y1", "x2", "y2"), box, strict=True), path=tmp_path / "phone.png") for box in boxes]
    (cut, whole), _ = cached_pictures(pd.DataFrame(rows), 64, tmp_path / "cache", progress=False)
    assert (whole == squash(stored.transpose(Image.Transpose.ROTATE_270), 64)).all()
    expected = stored.crop((24, 14, 106, 136)).transpose(Image.Transpose.ROTATE_270)
    assert (cut == squash(expected, 64)).all()


def test_batches_are_normalized_as_for_imagenet():
    white = to_batch([np.full((8, 8, 3), 255, np.uint8)])
    expected = (1 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
    torch.testing.assert_close(white[0, :, 3, 3], expected)
    assert white.is_contiguous(memory_format=torch.channels_last)
    assert normalize(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)).dtype == torch.float32


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_augmentation_keeps_the_contract(name):
    picture = torch.from_numpy(np.random.default_rng(1).integers(0, 255, (224, 224, 3), dtype=np.uint8))
    transform = augmentation(RECIPES[name], 96, [np.full((30, 40, 3), 128, np.uint8)])
    variants = [transform(picture.permute(2, 0, 1)) for _ in range(4)]
    assert all(variant.shape == (3, 96, 96) and variant.dtype == torch.uint8 for variant in variants)
    assert not torch.equal(variants[0], variants[1])


@pytest.mark.parametrize("name", sorted(RECIPES))
def test_sizes_grow_and_end_at_the_last(name):
    recipe = RECIPES[name]
    sizes = [recipe.size_at(epoch) for epoch in range(recipe.epochs)]
    assert sizes == sorted(sizes)
    assert sizes[-1] == recipe.sizes[-1][1]
    assert recipe.eval_size_at(recipe.epochs - 1) == recipe.eval_size


@pytest.mark.parametrize("epochs", [*range(1, 12), 50, 70])
def test_progressive_sizes_grow_and_end_at_the_last(epochs):
    recipe = small("scratch", epochs=epochs, eval_size=224).progressive()
    sizes = [recipe.size_at(epoch) for epoch in range(epochs)]
    assert sizes == sorted(sizes)
    assert (sizes[0], sizes[-1]) == (112 if epochs > 1 else 224, 224)
    assert [recipe.eval_size_at(epoch) for epoch in range(epochs)] == sizes


def test_progressive_sizes_are_in_proportion_to_the_size(data, tmp_path):
    options = ["--recipe", "scratch", "--data", str(data), "--init", "none", "--out", str(tmp_path), "--epochs", "3"]
    options += ["--size", "96", "--progressive", "--workers", "0", "--accelerator", "cpu"]
    done = CliRunner().invoke(app, ["train", *options])
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "metrics.csv")["image_size"].tolist() == [48, 48, 96]
    assert model_folder.load(tmp_path / "model").config["input"]["size"] == 96


def test_training_does_not_fork_its_process(data, tmp_path):
    """A fork would keep locks that other threads hold, here OpenCV's, and could wait for them forever."""
    script = (
        "import cv2, numpy, os, sys; from twincar.cli import main;"
        "photo = numpy.zeros((3000, 4000, 3), numpy.uint8);"
        "[cv2.GaussianBlur(photo, (0, 0), 5) for _ in range(3)];"
        "os.register_at_fork(before=lambda: print('forked'));"
        "sys.argv[1:] = sys.argv[1].split('|'); main()"
    )
    options = ["train", "--recipe", "flagship", "--data", str(data), "--init", "none", "--out", str(tmp_path / "run")]
    options += ["--epochs", "1", "--size", "32", "--batch-size", "4", "--accelerator", "cpu", "--workers", "1"]
    done = subprocess.run([sys.executable, "-c", script, "|".join(options)], capture_output=True, timeout=180)
    assert done.returncode == 0, done.stderr.decode()
    assert b"forked" not in done.stdout


def test_a_script_that_its_workers_cannot_import_is_told_so(data, tmp_path):
    (tmp_path / "script.py").write_text(
        "from pathlib import Path\n"
        "from twincar.data.table import load_table\n"
        "from twincar.modeling.training.recipes import RECIPES\n"
        "from twincar.modeling.training.train import train\n"
        f"table = load_table(Path({str(data)!r}))\n"
        "train(RECIPES['scratch'], table, Path('run'), init='none', accelerator='cpu', progress=False)\n"
    )
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True, timeout=180)
    assert done.returncode == 1
    assert 'call `train` below `if __name__ == "__main__":`, or with `workers=0`.' in done.stderr


@pytest.mark.parametrize("mapped", [True, False])
def test_worker_processes_map_the_cache_themselves(data, tmp_path, mapped):
    pictures, _ = cached_pictures(load_table(data), 64, tmp_path, progress=False)
    pictures = pictures if mapped else pictures[:4]
    dataset = PictureDataset(pictures, np.arange(4), np.arange(4), size=64)
    pickled = pickle.dumps(dataset)
    assert (len(pickled) < 4 * 64 * 64 * 3) == mapped
    again = pickle.loads(pickled)
    assert [item[1:] for item in again] == [item[1:] for item in dataset]
    assert all(torch.equal(one[0], two[0]) for one, two in zip(again, dataset, strict=True))
