"""`twincar predict --engine ray` on a local Ray cluster with two workers. Skipped if Ray is not installed."""

import json

import pytest
from typer.testing import CliRunner

from tests.conftest import draw_car
from twincar import Predictor
from twincar.cli import app

ray = pytest.importorskip("ray")


def twincar(*words):
    return CliRunner().invoke(app, [str(word) for word in words], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def workers(tmp_path_factory):
    """A cluster of two Predictors."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="error")
    yield
    ray.shutdown()


@pytest.mark.slow
def test_it_gives_the_results_of_the_predictor_and_resumes(workers, tiny_model, tmp_path):
    photos = tmp_path / "photos"
    (photos / "more").mkdir(parents=True)
    for place in range(40):
        draw_car(place % 5, place).save(photos / ("more" if place % 2 else "") / f"{place:02d}.jpg")
    (photos / "broken.jpg").write_bytes(b"<html>")
    (photos / "notes.txt").write_text("not asked for")
    out = tmp_path / "results.jsonl"
    words = ("predict", photos, "--model", tiny_model, "--engine", "ray", "--out", out)
    done = twincar(*words)
    assert done.exit_code == 1, done.output
    assert "41 photos, 1 of them unreadable" in done.output
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["file"] for row in rows] == sorted(str(path) for path in photos.rglob("*.jpg"))
    predictor = Predictor.from_pretrained(tiny_model)
    for row in rows:
        if row["file"].endswith("broken.jpg"):
            assert "not a picture" in row["error"]
        else:
            best = predictor(row["file"]).top(1)[0]
            assert row["top"][0]["class_name"] == best.class_name
            assert row["top"][0]["probability"] == pytest.approx(best.probability, abs=1e-3)
    out.write_text("".join(f"{json.dumps(row)}\n" for row in rows[:30]))
    assert "11 photos" in twincar(*words, "--resume").output
    assert [json.loads(line) for line in out.read_text().splitlines()] == rows


@pytest.mark.parametrize(
    ("photos", "message"),
    [("empty", "no pictures in"), ("nothing", "cannot be listed"), ("s4://there/photos", "cannot be")],
)
def test_mistakes_get_one_sentence(photos, message, tiny_model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    done = twincar("predict", photos, "--model", tiny_model, "--engine", "ray")
    assert done.exit_code == 2, done.output
    assert message in done.output.replace("\n", " ")
