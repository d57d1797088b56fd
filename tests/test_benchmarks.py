"""The benchmarks take the options that the documentation gives, and measure what they say.

The speeds that they measure are not tested.
"""

import re
import runpy
import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from benchmarks import corruption_robustness
from benchmarks.corruptions import CORRUPTIONS, SEVERITIES
from benchmarks.every_car import HEIGHT, beside
from tests.conftest import CLASSES, draw_car, draw_folders
from twincar import Predictor
from twincar.config import CHECKOUT
from twincar.data.table import load_table, prepare
from twincar.modeling.evaluation.evaluate import evaluate

COMMAND = re.compile(r"python -m benchmarks(\.\w+)?([^`\n#]*)")


def documented() -> dict[tuple[str, ...], set[str]]:
    """The options of each benchmark, or subcommand of one, that any page or docstring of the project gives."""
    found: dict[tuple[str, ...], set[str]] = {}
    pages = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/*.md"), *CHECKOUT.glob("reports/*.md")]
    for file in [*pages, *CHECKOUT.glob("benchmarks/*.py")]:
        for module, rest in COMMAND.findall(file.read_text(encoding="utf-8")):
            subcommand = [word for word in rest.split()[:1] if word in ("measure", "split")]
            options = found.setdefault((module.removeprefix(".") or "__main__", *subcommand), set())
            options |= set(re.findall(r"--[a-z][a-z-]*", rest))
    return found


def test_every_benchmark_is_documented():
    modules = {file.stem for file in CHECKOUT.glob("benchmarks/*.py") if "__main__" in file.read_text("utf-8")}
    assert modules == {module for module, *_ in documented()}


@pytest.mark.parametrize("command", sorted(documented()), ids=" ".join)
def test_benchmarks_take_the_documented_options(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")  # so that no option is cut
    monkeypatch.setattr(sys, "argv", [command[0], *command[1:], "--help"])
    monkeypatch.delitem(sys.modules, f"benchmarks.{command[0]}", raising=False)
    with pytest.raises(SystemExit) as ended:
        runpy.run_module(f"benchmarks.{command[0]}", run_name="__main__")
    shown = capsys.readouterr().out
    assert not ended.value.code
    assert documented()[command] <= set(re.findall(r"--[a-z][a-z-]*", shown))


@pytest.mark.parametrize("name", CORRUPTIONS)
@given(label=st.integers(0, 4), seed=st.integers(0, 50), width=st.integers(48, 224), height=st.integers(48, 224))
def test_corruptions_damage_more_with_severity_and_alike_each_time(name, label, seed, width, height):
    picture = np.asarray(draw_car(label, seed, (width, height)))
    before, damage = picture.copy(), []
    for severity in range(1, SEVERITIES + 1):
        corrupted = corruption_robustness.corrupt(picture, name, severity, seed)
        assert (corrupted.shape, corrupted.dtype) == (picture.shape, np.uint8)
        assert (corrupted == corruption_robustness.corrupt(picture, name, severity, seed)).all()
        damage.append(np.abs(corrupted.astype(float) - picture).mean())
    assert (picture == before).all()
    assert damage[0] > 0
    assert damage[-1] > damage[0]


def test_accuracy_without_corruption_is_that_of_evaluate(tiny_model, tmp_path):
    prepare(draw_folders(tmp_path / "cars", CLASSES[:3]), tmp_path / "data", val_size=0.5, progress=False)
    corruption_robustness.main(tiny_model, tmp_path / "data", tmp_path)
    table = pd.read_csv(tmp_path / "corruption_robustness.csv")
    assert len(table) == 1 + len(CORRUPTIONS) * SEVERITIES
    expected = evaluate(Predictor.from_pretrained(tiny_model), load_table(tmp_path / "data"), "val").scores["top1"]
    assert table["accuracy"].iloc[0] == pytest.approx(expected, abs=1e-3)
    text = (tmp_path / "corruption_robustness.md").read_text(encoding="utf-8")
    assert all(f"| {name} |" in text for name in CORRUPTIONS)
    for link in re.findall(r"\]\((.*?)\)", text):
        assert (tmp_path / link).stat().st_size > 5000


@given(st.lists(st.tuples(st.integers(40, 900), st.integers(40, 900)), min_size=1, max_size=3), st.data())
def test_boxes_move_with_photos_that_are_set_side_by_side(sizes, data):
    photos, boxes = [], []
    for width, height in sizes:
        x1, y1 = data.draw(st.integers(0, width - 20)), data.draw(st.integers(0, height - 20))
        x2, y2 = data.draw(st.integers(x1 + 20, width)), data.draw(st.integers(y1 + 20, height))
        photo = Image.new("RGB", (width, height))
        photo.paste((255, 255, 255), (x1, y1, x2, y2))
        photos.append(photo)
        boxes.append((x1, y1, x2, y2))
    whole, moved = beside(photos, boxes)
    assert len(photos) == 1 or whole.height == HEIGHT
    bright = np.asarray(whole.convert("L")) > 127
    inside = np.zeros_like(bright)
    for x1, y1, x2, y2 in moved:
        inside[y1:y2, x1:x2] = True
    assert (bright & inside).sum() > 0.8 * (bright | inside).sum()
