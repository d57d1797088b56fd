"""`twincar predict` over folders: it streams, writes each result at once, and resumes an interrupted run."""

import csv
import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tests.conftest import CLASSES, draw_car
from twincar.batch.results import COLUMNS, find_photos, open_results
from twincar.cli import app
from twincar.config import TwinCarError, parse_class_name
from twincar.modeling.inference.prediction import Guess

NAMES = ["a.jpg", "b.jpg", "c/1.png", "c/größe 2.jpg", "d.JPG"]


def twincar(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture
def folder(tmp_path):
    for place, name in enumerate(NAMES):
        file = tmp_path / "photos" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        draw_car(place).save(file)
    (tmp_path / "photos" / "b.jpg").write_bytes(b"<html>")
    (tmp_path / "photos" / "notes.txt").write_text("not asked for")
    return tmp_path / "photos"


def read(file: Path) -> list[dict]:
    if file.suffix == ".csv":
        with file.open(newline="", encoding="utf-8-sig") as lines:
            return list(csv.DictReader(lines))
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_results_are_written_and_a_resumed_run_adds_the_missing_ones(folder, tiny_model, tmp_path, suffix):
    out = tmp_path / "new" / f"results{suffix}"
    words = ("predict", folder, "--model", tiny_model, "--out", out)
    done = twincar(*words)
    assert done.exit_code == 1  # one is not a photo
    assert "5 photos, 1 of them unreadable" in done.output
    whole, rows = out.read_bytes(), read(out)
    assert [row["file"] for row in rows] == [str(folder / name) for name in NAMES]
    assert "not a picture" in rows[1]["error"]
    if suffix == ".csv":
        assert list(rows[0]) == COLUMNS
        assert whole.startswith(b"\xef\xbb\xbffile,") and whole.count(b"\xef\xbb\xbf") == 1
        assert rows[0]["said"].startswith(("Not sure", rows[0]["class_name"])) and not rows[0]["is_known"]
        assert rows[0]["class_name"] in CLASSES and 0 < float(rows[0]["probability"]) <= 1
    else:
        assert len(rows[0]["top"]) == 5

    refused = twincar(*words)
    assert refused.exit_code == 2 and "--resume" in refused.output
    assert out.read_bytes() == whole

    out.write_bytes(whole[:-7])  # interrupted in the middle of the last line
    draw_car(3).save(folder / "b2.jpg")
    done = twincar(*words, "--resume")
    assert "2 photos, 0 of them unreadable" in done.output and "(4 from earlier runs)" in done.output
    rows = read(out)
    assert [Path(row["file"]).name for row in rows] == ["a.jpg", "b.jpg", "1.png", "größe 2.jpg", "b2.jpg", "d.JPG"]
    again = twincar(*words, "--resume")
    assert again.exit_code == 0 and "0 photos" in again.output
    assert read(out) == rows


@pytest.mark.slow
def test_a_killed_run_loses_nothing(tiny_model, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for place in range(150):
        draw_car(place % 5, place).save(photos / f"{place:03d}.jpg")
    out = tmp_path / "results.csv"
    command = [sys.executable, "-m", "twincar", "predict", photos, "--model", tiny_model, "--out", out]
    with subprocess.Popen([str(word) for word in command], env=os.environ) as process:
        while not out.exists() or len(out.read_bytes().splitlines()) < 20:
            assert process.poll() is None, "it finished before it could be killed"
            time.sleep(0.005)
        process.kill()
    before = len(read(out)) - 1  # the last line may be incomplete
    assert 10 < before < 150
    assert twincar("predict", photos, "--model", tiny_model, "--out", out, "--resume").exit_code == 0
    assert [Path(row["file"]).name for row in read(out)] == [f"{place:03d}.jpg" for place in range(150)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--out", "{tmp}/results.txt"], "does not end in .jsonl or .csv"),
        (["--resume"], "add `--out`"),
        (["--out", "{tmp}/other.csv", "--resume"], "is not a results file"),
        (["--out", "{tmp}/other.jsonl", "--resume"], "is not a results file"),
        (["--out", "{photo}/results.csv"], "cannot be written"),
    ],
)
def test_mistakes_get_one_sentence(words, message, car_photo, tiny_model, tmp_path):
    (tmp_path / "other.csv").write_text("name,colour\ncar,red\n")
    (tmp_path / "other.jsonl").write_text("[1]\n")
    done = twincar(
        "predict", car_photo, "--model", tiny_model, *(word.format(tmp=tmp_path, photo=car_photo) for word in words)
    )
    assert done.exit_code == 2
    assert message in done.output.replace("\n", " ")
    assert (tmp_path / "other.csv").read_text() == "name,colour\ncar,red\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.csv", "other.jsonl"]


def test_folders_are_walked_lazily(folder, monkeypatch):
    listed = []
    scandir = os.scandir
    monkeypatch.setattr("twincar.batch.results.os.scandir", lambda path: listed.append(path) or scandir(path))
    found = find_photos([folder])
    assert next(found).name == "a.jpg"
    assert listed == [folder]  # not yet the one below it
    assert [path.name for path in found] == ["b.jpg", "1.png", "größe 2.jpg", "d.JPG"]
    (folder / "e").mkdir()
    with pytest.raises(TwinCarError, match="no pictures"):
        list(find_photos([folder / "a.jpg", folder / "e"]))


def test_folders_of_systems_are_skipped_and_unread_formats_counted(folder, tiny_model):
    for name in ("@eaDir/a.jpg", "c/lost+found/b.jpg", ".hidden/c.jpg", "c/._1.png", "c/IMG_1.CR2", "2.dng", "3.DNG"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(b"")
    done = twincar("predict", folder, "--model", tiny_model, "--json")
    assert len(done.stdout.splitlines()) == len(NAMES)
    assert "3 pictures in formats that are not read (2 .dng, 1 .cr2): save them as JPEG." in done.stderr
    with pytest.raises(TwinCarError, match=r"no pictures in the folder .*/raw that can be read \(.cr2 cannot\)"):
        (folder / "raw").mkdir(), (folder / "raw/1.cr2").write_bytes(b"")
        list(find_photos([folder / "raw"], Counter()))


def test_names_that_are_not_unicode_are_resumed(tiny_model, tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    draw_car(0).save(folder / "car.jpg")
    (folder / "car.jpg").rename(os.fsdecode(bytes(folder) + b"/\xff=car.jpg"))
    for suffix in (".jsonl", ".csv"):
        words = ("predict", folder, "--model", tiny_model, "--out", tmp_path / f"results{suffix}")
        assert twincar(*words).exit_code == 0
        assert "0 photos" in twincar(*words, "--resume").output
    assert twincar("predict", folder, "--model", tiny_model, "--json").exit_code == 0


def answer(*cars: Guess) -> dict:
    """The part of an answer that a results file needs."""
    decided = {"said": "Sure.", "is_known": True}
    found = [decided | {"state": "car", "top": [car.as_dict()], "box": None} for car in cars]
    return {"cars": found, "state": "no_car", "said": "No car found.", "is_car": bool(cars), "is_known": None}


def test_a_csv_has_a_line_per_car_and_a_photo_without_some_of_them_is_resumed(tmp_path):
    out = tmp_path / "results.csv"
    guesses = [Guess(**parse_class_name(name).as_dict(), probability=0.5) for name in CLASSES[:3]]
    with open_results(out) as results:
        results.write("empty.jpg", answer())
        results.write("one.jpg", answer(guesses[0]))
        results.write("street.jpg", answer(*guesses))
    rows, whole = read(out), out.read_bytes()
    assert {tuple(row[key] for key in ("said", "is_car", "is_known")) for row in rows} == {
        ("No car found.", "False", ""),
        ("Sure.", "True", "True"),
    }
    assert [(row["file"], row["car"], row["cars"], row["state"]) for row in rows] == [
        ("empty.jpg", "", "0", "no_car"),
        ("one.jpg", "1", "1", "car"),
        *[("street.jpg", str(car), "3", "car") for car in (1, 2, 3)],
    ]
    assert [row["class_name"] for row in rows] == ["", CLASSES[0], *CLASSES[:3]]
    lines = whole.splitlines(keepends=True)
    for lost in (1, 2):
        out.write_bytes(b"".join(lines[:-lost]) + lines[-lost][:-5])
        with open_results(out, resume=True) as results:
            assert [name in results for name in ("empty.jpg", "one.jpg", "street.jpg")] == [True, True, False]
            results.write("street.jpg", answer(*guesses))
        assert out.read_bytes() == whole


@settings(max_examples=40, deadline=None)
@given(
    names=st.lists(st.text(min_size=1), max_size=6, unique=True),
    lost=st.integers(0, 30),
    suffix=st.sampled_from([".jsonl", ".csv"]),
)
def test_any_names_are_resumed(tmp_path_factory, names, lost, suffix):
    out = tmp_path_factory.mktemp("results") / f"results{suffix}"
    guess = Guess(**parse_class_name(CLASSES[0]).as_dict(), probability=0.5)
    with open_results(out) as results:
        for name in names:
            assert name not in results
            results.write(name, answer(guess))
    with open_results(out, resume=True) as results:
        assert len(results) == len(names)
        assert all(name in results for name in names)
    whole = out.read_bytes()
    out.write_bytes(whole[: max(len(whole) - lost, 0)])
    with open_results(out, resume=True) as results:
        for name in names:
            if name not in results:
                results.write(name, "no photo")
    assert len(read(out)) == len(names)
