"""The comparison of the recipes: its rows, the command, and the copy in README.md."""

import json
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from twincar.cli import app
from twincar.config import CHECKOUT, TwinCarError
from twincar.modeling.hub.card import HEADLINES
from twincar.modeling.training.recipes import ORIGINAL_RESULTS, RECIPES
from twincar.report import comparison

ROOT = CHECKOUT


def measured(folder: Path, recipe, epochs: int, top1: float) -> None:
    """Write a minimal version of the files that `twincar train` and `twincar evaluate` write."""
    folder.mkdir(parents=True)
    scores = {"split": "val", "pictures": 50}
    for name in HEADLINES:
        scores |= {name: top1, f"{name}_interval": [top1 - 0.1, top1 + 0.1]}
    run = {"pictures": {"train": 100, "val": 50}, "hardware": "1 core", "precision": "32-true", "init": "none"}
    (folder / "scores.json").write_text(json.dumps(scores))
    (folder / "recipe.json").write_text(json.dumps(asdict(recipe)))
    (folder / "run.json").write_text(json.dumps(run | {"date": "2026-11-21"}))
    log = pd.DataFrame({"epoch": range(epochs), "image_size": recipe.sizes[-1][1], "epoch_seconds": 36.0})
    log.to_csv(folder / "metrics.csv", index=False)


def test_complete_and_shortened_runs_are_distinguished(tmp_path):
    measured(tmp_path / "flagship", RECIPES["flagship"], 36, 0.9)
    measured(tmp_path / "twincar", RECIPES["twincar"], 11, 0.8)  # ended by early stopping
    measured(tmp_path / "scratch", replace(RECIPES["scratch"], epochs=7), 7, 0.3)
    measured(tmp_path / "lite", replace(RECIPES["lite"], sizes=((0.0, 96),)), 36, 0.85)
    (tmp_path / "report").mkdir()  # trained, but not evaluated yet
    table = comparison.compare(tmp_path).set_index("recipe")
    assert list(table.index) == ["flagship", "lite", "twincar", "scratch"], "the best first"
    assert dict(table["status"]) == {
        "flagship": "complete", "twincar": "complete", "scratch": "shortened", "lite": "shortened",
    }  # fmt: skip
    assert table.loc["scratch", "pictures_seen"] == 700
    assert table.loc["scratch", "hours"] == 0.07
    assert table.loc["scratch", "top1_low"] == pytest.approx(0.2)
    assert table.loc["scratch", "original_top1"] == ORIGINAL_RESULTS["scratch"]["top1"]
    lines = comparison.as_markdown(table.reset_index()).splitlines()
    assert lines[5].startswith("| `scratch` | 30.0 % (20.0–40.0) |")
    assert "**shortened**: 7 of 70 epochs, 224 px, 700 samples" in lines[5]
    assert "96 of 160 px" in lines[3]
    assert "top-1 79.1 %" in lines[4]


def test_a_run_that_continues_one_of_the_same_recipe_counts_with_it(tmp_path):
    measured(tmp_path / "flagship_robust", replace(RECIPES["flagship_robust"], epochs=6), 6, 0.9)
    run = json.loads((tmp_path / "flagship_robust/run.json").read_text())
    first = {"recipe": "flagship", "epochs": 36, "hours": 1.0}
    parent = {"recipe": "flagship_robust", "epochs": 10, "hours": 2.0, "hardware": "8 cores", "parent": first}
    for run["parent"], shown in (
        (parent, "complete: 16 epochs, 192 px, 1,600 samples; 2.1 h on 8 cores and 1 core |"),
        (first, "**shortened**: 6 of 10 epochs, 192 px, 600 samples; 0.1 h on 1 core |"),
    ):
        (tmp_path / "flagship_robust/run.json").write_text(json.dumps(run))
        assert shown in comparison.as_markdown(comparison.compare(tmp_path))


def test_the_command_writes_the_table_and_prints_it(tmp_path):
    measured(tmp_path / "twincar", RECIPES["twincar"], 3, 0.5)
    done = CliRunner().invoke(app, ["compare", "--reports", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert pd.read_csv(tmp_path / "recipes.csv")["recipe"].tolist() == ["twincar"]
    assert done.output == comparison.as_markdown(comparison.compare(tmp_path))
    shutil.rmtree(tmp_path / "twincar")
    with pytest.raises(TwinCarError, match="contains no measured recipe"):
        comparison.compare(tmp_path)


def test_readme_and_recipes_csv_match_the_reports():
    table = comparison.compare(ROOT / "reports")
    kept = pd.read_csv(ROOT / "reports" / "recipes.csv")
    assert kept["recipe"].tolist() == table["recipe"].tolist()
    for name in HEADLINES:
        assert kept[name].tolist() == pytest.approx(table[name].tolist(), abs=1e-4)
    assert comparison.as_markdown(table) in (ROOT / "README.md").read_text(encoding="utf-8")
