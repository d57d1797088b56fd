"""`twincar report`: the files it writes, consistency of the tables, and redrawing figures from the tables."""

import json
import re
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from tests.cli.test_cli import twincar
from tests.conftest import draw_car
from twincar.config import CHECKOUT
from twincar.data.table import load_table, prepare
from twincar.modeling.hub import model_folder
from twincar.modeling.training.recipes import RECIPES
from twincar.report import report, tables
from twincar.report.report import variants

REPORTS = CHECKOUT / "reports"
NAMES = ["Citroen 2CV Sedan 1948", "Lada Niva SUV 1977", "Trabant 601 Sedan 1964"]
PHOTOS = {"confused_pairs.jpg", "grad_cam.jpg", "augmentation.jpg"}
TABLES = {
    "scores.json", "predictions.csv", "per_class.csv", "confusion.csv", "confused_pairs.csv", "class_distribution.csv",
    "classification_report.json", "classification_report.csv", "class_mappings.json", "reliability.csv",
    "selective.csv", "calibration.json",
}  # fmt: skip


@pytest.fixture(scope="module")
def data(car_folders, tmp_path_factory) -> Path:
    out = tmp_path_factory.mktemp("data")
    prepare(car_folders, out, val_size=0.25, progress=False)
    return out


def save_model(folder: Path, **more) -> Path:
    torch.manual_seed(1)
    architecture = {"name": "resnet18", "head": "linear"}
    config = {"architecture": architecture, "class_names": NAMES, "input": {"size": 48}, **more}
    return model_folder.save(model_folder.CarModel(config), folder)


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    """The files of a training run of two epochs, without weights."""
    folder = tmp_path_factory.mktemp("run")
    columns = [f"{side}_{name}" for side in ("train", "val") for name in ("loss", "top1")]
    columns += [f"val_{name}" for name in ("top3", "top5", "f1_macro", "precision_macro", "recall_macro")]
    log = pd.DataFrame(np.random.default_rng(0).random((2, len(columns))), columns=columns)
    log.assign(epoch=[0, 1], image_size=48, lr_fc=0.1, epoch_seconds=2.0).to_csv(folder / "metrics.csv", index=False)
    (folder / "recipe.json").write_text(json.dumps(asdict(RECIPES["flagship"])))
    facts = {"pictures": {"train": 18, "val": 6}, "hardware": "1 core", "precision": "32-true", "init": "none"}
    (folder / "run.json").write_text(json.dumps(facts | {"date": "2026-11-21"}))
    return folder


@pytest.fixture(scope="module")
def written(data, run, tmp_path_factory) -> Path:
    """The report of a model with a recipe and a calibration, written by the command."""
    out = tmp_path_factory.mktemp("out")
    recipe = json.loads(json.dumps(asdict(replace(RECIPES["flagship"], sizes=((0.0, 48),)))))
    model = save_model(out / "model", recipe=recipe, calibration={"temperature": 0.7, "slope": 0.9, "intercept": 0.1})
    done = twincar("report", "--model", model, "--data", data, "--out", out / "reports", "--run", run)
    assert done.exit_code == 0, done.output
    return out / "reports" / "flagship"


@pytest.mark.parametrize("name", RECIPES)
def test_the_augmentation_of_every_recipe_can_be_shown(name):
    columns = [
        variants(draw_car(0), RECIPES[name], 0, backgrounds, count=12)
        for backgrounds in ([], [np.zeros((60, 80, 3), np.uint8)], [np.full((60, 80, 3), 255, np.uint8)])
    ]
    for pictures in columns:
        assert len(pictures) == 13 and {picture.size for picture in pictures[1:]} == {(RECIPES[name].sizes[-1][1],) * 2}
    assert (columns[1] == columns[2]) == (RECIPES[name].paste == 0), "the photo behind the car can be seen"


def test_recipes_and_data_statistics_are_written_too(written, data):
    reports = written.parent
    assert len(pd.read_csv(reports / "data" / "statistics.csv")) == len(load_table(data))
    assert (reports / "data" / "class_distribution.csv").is_file()
    assert pd.read_csv(reports / "recipes.csv")["recipe"].tolist() == ["flagship"]


def test_all_tables_are_written_and_agree(written, data):
    assert TABLES | set(report.LOG) <= {path.name for path in written.iterdir()}
    scores = json.loads((written / "scores.json").read_text())
    confusion, classes = pd.read_csv(written / "confusion.csv"), pd.read_csv(written / "per_class.csv")
    assert confusion["count"].sum() == classes["support"].sum() == scores["pictures"] == 6
    right = confusion.loc[confusion["true"] == confusion["predicted"], "count"].sum()
    assert right / 6 == pytest.approx(scores["top1"])
    sklearn_report = json.loads((written / "classification_report.json").read_text())
    assert sklearn_report["accuracy"] == pytest.approx(scores["top1"])
    for row in classes.to_dict("records"):
        assert sklearn_report[row["class_name"]]["f1-score"] == pytest.approx(row["f1"], abs=1e-4)
    pairs = pd.read_csv(written / "confused_pairs.csv")
    assert pairs["count"].sum() + pairs["reverse"].sum() == 6 - right
    counts = pd.read_csv(written / "class_distribution.csv")
    table = load_table(data)
    assert {split: counts[split].sum() for split in ("train", "val")} == dict(table["split"].value_counts())
    mappings = json.loads((written / "class_mappings.json").read_text())
    assert mappings["label_of"] == {entry["class_name"]: entry["label"] for entry in mappings["classes"]}
    assert mappings["classes"][1] == {
        "label": 1, "class_name": "Lada Niva SUV 1977", "make": "Lada", "model": "Niva", "body": "SUV", "year": 1977
    }  # fmt: skip
    facts = json.loads((written / "calibration.json").read_text())
    assert facts["cross_fitted"] is True
    assert pd.read_csv(written / "reliability.csv")["count"].sum() == facts["pictures"] == 6


def test_page_shows_every_figure_and_no_local_path(written):
    page = (written / "README.md").read_text()
    shown = re.findall(r"\]\(figures/(.*?)\)", page)
    assert set(shown) == {path.name for path in (written / "figures").iterdir()} >= PHOTOS
    assert len(set(shown)) >= 11
    for path in written.rglob("*.*"):
        if path.suffix in (".md", ".json", ".csv", ".svg"):
            assert str(written.parents[1]) not in path.read_text()
    assert not list(written.rglob("*.tmp*"))


def test_redraw_reproduces_figures_from_tables(written, tmp_path):
    copy = tmp_path / "reports" / "flagship"
    shutil.copytree(written, copy)
    before = {path.name: path.read_bytes() for path in (copy / "figures").iterdir()}
    for name in set(before) - PHOTOS:
        (copy / "figures" / name).unlink()
    (copy / "README.md").unlink()
    done = twincar("report", "--redraw", "--out", tmp_path / "reports")
    assert done.exit_code == 0, done.output
    assert {path.name: path.read_bytes() for path in (copy / "figures").iterdir()} == before
    assert (copy / "README.md").read_text() == (written / "README.md").read_text()


@pytest.mark.slow
def test_a_model_without_recipe_and_log(data, tmp_path):
    """No recipe, no calibration and no log; the model predicts one class for all pictures."""
    model = save_model(tmp_path / "model", name="My Cars")
    done = twincar("report", "--model", model, "--data", data, "--out", tmp_path, "--split", "train")
    assert done.exit_code == 0, done.output
    figures = {path.name for path in (tmp_path / "my-cars" / "figures").iterdir()}
    assert figures >= {"confusion.png", "f1_all.png", "reliability.png", "grad_cam.jpg"}
    assert not figures & {"training.png", "top_k.png", "augmentation.jpg"}
    facts = json.loads((tmp_path / "my-cars" / "calibration.json").read_text())
    assert (facts["cross_fitted"], facts["as_published"]) == (False, None)
    assert facts["calibration"] == {"temperature": 1.0, "slope": 1.0, "intercept": 0.0}
    assert "calibrat" not in (tmp_path / "my-cars" / "README.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "{empty}", "--data", "{data}", "--model", "{model}"], "contains no metrics.csv"),
        (["--redraw"], "run without `--redraw`"),
        (["--data", "{data}", "--model", "{model}", "--split", "test"], "no test pictures"),
    ],
)
def test_user_errors_are_one_sentence(arguments, message, data, tiny_model, tmp_path):
    (tmp_path / "empty").mkdir()
    filled = [text.format(empty=tmp_path / "empty", data=data, model=tiny_model) for text in arguments]
    done = twincar("report", "--out", tmp_path / "out", *filled)
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert "Traceback" not in done.output
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_committed_report_matches_its_tables(tmp_path):
    out = tmp_path / "flagship"
    shutil.copytree(REPORTS / "flagship", out, ignore=shutil.ignore_patterns("*.png", "*.svg"))
    drawn = {path.name for path in report.redraw(out)}
    committed = {path.name for path in (REPORTS / "flagship" / "figures").iterdir()}
    assert drawn | PHOTOS == committed
    assert (out / "README.md").read_text() == (REPORTS / "flagship" / "README.md").read_text()
    answers = pd.read_csv(out / "predictions.csv")
    pd.testing.assert_frame_equal(tables.confusion(answers), pd.read_csv(out / "confusion.csv"))
    pairs = pd.read_csv(out / "confused_pairs.csv")
    assert (pairs["count"] + pairs["reverse"]).is_monotonic_decreasing
    for folder in (path for path in REPORTS.iterdir() if path.is_dir()):  # limits the size of a clone
        sizes = [path.stat().st_size for path in folder.rglob("*.*")]
        assert max(sizes) < 600_000
        assert sum(sizes) < 2_000_000
