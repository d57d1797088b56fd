"""The command line."""

import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import CLASSES, draw_car
from twincar.cli import app
from twincar.data.table import prepare

ENVIRONMENT = {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb"}


def twincar(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env=ENVIRONMENT)


@pytest.fixture
def folder(tmp_path, car_photo):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    (photos / "a.jpg").write_bytes(car_photo.read_bytes())
    (photos / "b.jpg").write_bytes(b"<html>")
    draw_car(1).save(photos / "more" / "größe 1.png")
    (photos / "notes.txt").write_text("not asked for")
    return photos


def test_help_lists_every_command():
    text = twincar("--help").output
    commands = "prepare crop train publish quantize fit-detector fit-open-set evaluate compare report predict explain "
    commands += "push pull space export"
    for command in commands.split():
        assert command in text
        assert "--" in twincar(command, "--help").output


def test_predict_json_is_one_object_per_line(folder, tiny_model):
    done = twincar("predict", folder, "--model", tiny_model, "--top", 3, "--json")
    assert done.exit_code == 1  # one could not be read
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["file"] for line in lines] == [str(folder / name) for name in ("a.jpg", "b.jpg", "more/größe 1.png")]
    assert "not a picture" in lines[1]["error"]
    for line in (lines[0], lines[2]):
        assert len(line["top"]) == 3
        assert set(line["top"][0]) == {"class_name", "make", "model", "body", "year", "probability"}
        assert line["top"][0]["class_name"] in CLASSES
        assert line["top"][0]["probability"] >= line["top"][1]["probability"]


def test_predict_prints_text(car_photo, tiny_model):
    done = twincar("predict", car_photo, "--model", tiny_model)
    assert done.exit_code == 0
    assert str(car_photo) in done.stdout
    assert sum(name in done.stdout for name in CLASSES) == 5


def test_explain_draws_the_given_class(car_photo, tiny_model, tmp_path):
    for name in (CLASSES[0], CLASSES[1]):
        done = twincar(
            "explain", car_photo, "--model", tiny_model, "--out", tmp_path / "new" / f"{name}.png", "--class", name
        )
        assert done.exit_code == 0, done.output
    first, second = (np.asarray(Image.open(tmp_path / "new" / f"{name}.png")) for name in CLASSES[:2])
    assert first.shape == (240, 320, 3)
    assert (first != second).any()
    assert len(list((tmp_path / "new").iterdir())) == 2  # no temporary files are left


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["predict", "{photo}", "--model", "nowhere/at all"], "neither a folder nor the name of a Hub repo"),
        (["predict", "{empty}", "--model", "{model}"], "no pictures in the folder"),
        (["explain", "{photo}", "--model", "{model}", "--out", "x.txt"], "does not end in .png"),
        (["explain", "nothing.jpg", "--model", "{model}", "--out", "x.png"], "no file nothing.jpg"),
        (["explain", "{photo}", "--model", "{model}", "--out", "x.png", "--class", "Trabant"], "none of the 5 classes"),
        (["evaluate", "--model", "{model}", "--data", "{empty}"], "twincar prepare"),
        (["train", "--data", "{empty}"], "twincar prepare"),
        (["prepare", "{empty}", "--out", "{empty}"], "No cars were found"),
    ],
)
def test_user_errors_are_one_sentence(arguments, message, car_photo, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    filled = [text.format(photo=car_photo, model=tiny_model, empty=tmp_path / "empty") for text in arguments]
    done = twincar(*filled)
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert "Traceback" not in done.output
    assert not (tmp_path / "x.png").exists()


def test_prepare_and_evaluate(car_folders, tmp_path):
    from twincar.modeling.hub import model_folder

    done = twincar("prepare", car_folders, "--out", tmp_path / "data", "--val-size", 0.25)
    assert done.exit_code == 0, done.output
    assert "24 pictures" in done.output
    names = ["Citroen 2CV Sedan 1948", "Lada Niva SUV 1977", "Trabant 601 Sedan 1964"]
    config = {"architecture": {"name": "resnet18", "head": "linear"}, "class_names": names, "input": {"size": 48}}
    model_folder.save(model_folder.CarModel(config), tmp_path / "model")
    done = twincar("evaluate", "--model", tmp_path / "model", "--data", tmp_path / "data", "--out", tmp_path / "scores")
    assert done.exit_code == 0, done.output
    scores = json.loads((tmp_path / "scores" / "scores.json").read_text())
    predictions = pd.read_csv(tmp_path / "scores" / "predictions.csv")
    assert scores["pictures"] == len(predictions) == 6
    assert scores["top1"] == pytest.approx(predictions["correct"].mean())
    assert scores["top3"] == 1.0
    assert (predictions["correct"] == (predictions["rank"] == 1)).all()
    assert scores["top1_interval"][0] <= scores["top1"] <= scores["top1_interval"][1]
    assert pd.read_csv(tmp_path / "scores" / "per_class.csv")["support"].sum() == 6
    assert f"{scores['top1']:.4f}" in done.output


def test_evaluate_rejects_a_model_of_other_classes(car_folders, tiny_model, tmp_path):
    prepare(car_folders, tmp_path, val_size=0.25, progress=False)
    done = twincar("evaluate", "--model", tiny_model, "--data", tmp_path)
    assert done.exit_code == 2
    assert "lacks 3 classes" in done.output


@pytest.mark.slow
def test_python_m_twincar_with_a_closed_pipe(car_photo, tiny_model):
    command = [sys.executable, "-m", "twincar", "predict", *[str(car_photo)] * 40, "--model", str(tiny_model), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ) as process:
        json.loads(process.stdout.readline())
        process.stdout.close()
        assert b"Traceback" not in process.stderr.read()
