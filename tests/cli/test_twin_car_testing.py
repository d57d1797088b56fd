"""`python twin_car_testing.py`: a folder of photos and a model in, predictions and metrics out."""

import json
import subprocess
import sys

import pandas as pd
import pytest
from typer import Typer
from typer.testing import CliRunner

import twin_car_testing
from tests.conftest import CLASSES, draw_car
from twincar.data.table import prepare


@pytest.fixture(scope="module")
def photos(tmp_path_factory, car_photo):
    """Three classes in subfolders with three photos each, a photo without a label and one that cannot be read."""
    photos = tmp_path_factory.mktemp("scored") / "photos"
    for label, name in enumerate(CLASSES[:3]):
        folder = photos / name.replace("/", "-")
        folder.mkdir(parents=True)
        for seed in range(3):
            draw_car(label, seed).save(folder / f"{seed}.png")
    (photos / "unknown.jpg").write_bytes(car_photo.read_bytes())
    (photos / "broken.jpg").write_bytes(b"")
    return photos


def script(*arguments):
    """Run the script in its own process."""
    command = [sys.executable, "twin_car_testing.py", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def score(*arguments):
    """Run the script's command in this process, which has imported torch already."""
    app = Typer()
    app.command()(twin_car_testing.main)
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


def test_subfolders_are_labels_and_all_metrics_are_written(photos, tiny_model, tmp_path):
    done = script(photos, "--model", tiny_model, "--out", tmp_path / "table.csv", "--scores", tmp_path / "scores.json")
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "table.csv")
    assert list(table.columns) == ["file", "class_name", "predicted", "probability", "correct", "rank", "error"]
    assert len(table) == 11
    assert table["class_name"].notna().sum() == 9
    assert list(table.loc[table["error"].notna(), "file"]) == ["broken.jpg"]
    assert table.loc[table["file"] == "unknown.jpg", "predicted"].notna().all()
    labelled = table[table["class_name"].notna()]
    accuracy = (labelled["class_name"] == labelled["predicted"]).mean()
    assert (labelled["correct"].astype(bool) == (labelled["rank"] == 1)).all()
    assert f"top1                 {accuracy:.4f}" in done.stdout
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["top1"] == pytest.approx(accuracy)
    assert scores["pictures"] == 9
    assert {"f1_macro", "mcc", "kappa", "top5", "top1_interval"} <= set(scores)


def test_labels_from_a_csv_give_the_scores_of_evaluate(photos, tiny_model, tmp_path):
    files = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    rows = pd.DataFrame({"file": files, "class_name": [file.split("/")[0] for file in files]})
    rows.to_csv(tmp_path / "labels.csv", index=False)
    arguments = ["--model", tiny_model, "--labels", tmp_path / "labels.csv", "--out", tmp_path / "table.csv"]
    done = score(photos, *arguments, "--scores", tmp_path / "scores.json")
    assert done.exit_code == 0, done.output
    table = pd.read_csv(tmp_path / "table.csv").dropna(subset="class_name")
    assert set(table["class_name"]) == set(CLASSES[:3])

    from twincar import Predictor
    from twincar.data.table import load_table
    from twincar.modeling.evaluation.evaluate import evaluate

    prepare(photos, tmp_path / "data", val_size=0, progress=False)
    theirs = evaluate(Predictor.from_pretrained(tiny_model), load_table(tmp_path / "data"), "train", progress=False)
    scores = json.loads((tmp_path / "scores.json").read_text())
    counted = {name: value for name, value in scores.items() if not name.endswith("interval")}  # drawn by order
    assert counted == pytest.approx({name: theirs.scores[name] for name in counted})
    assert len(counted) >= 15


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("file,class_name\nnowhere.jpg,BMW M3 Coupe 2012\n", "contains 1 photo that"),
        ("file,class_name\nunknown.jpg,Lada Niva SUV 1977\n", "contains 1 class that the model does not have"),
        ("name,label\nunknown.jpg,Lada\n", "needs the columns file and class_name"),
        ("file,class_name\nunknown.jpg,\n", "No photo in"),
        (None, "cannot be read as CSV"),
    ],
)
def test_wrong_labels_are_one_sentence(rows, message, photos, tiny_model, tmp_path, monkeypatch):
    labels = tmp_path / "labels.csv"
    if rows is not None:
        labels.write_text(rows)
    monkeypatch.chdir(tmp_path)
    done = score(photos, "--model", tiny_model, "--labels", labels, "--scores", "scores.json")
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert "Traceback" not in done.output
    assert not (tmp_path / "predictions.csv").exists()


def test_missing_folder(tmp_path):
    done = score(tmp_path / "nowhere")
    assert done.exit_code == 2
    assert "does not exist" in done.output and "Traceback" not in done.output
