"""The corpus of hostile files through the Predictor, the command line, the page's API and the page.

Each case gives the expected result (a prediction, or an error of one sentence) under limits of memory and processor
time. The process survives, and the next photo is predicted.
"""

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image
from playwright.sync_api import expect

from tests.helpers import hostile_files
from tests.helpers.hostile_files import CAR, as_expected, cases, encode, exif, heic, is_sentence
from tests.helpers.visit import visiting
from twin_car_testing import utf8
from twincar import PhotoError
from twincar.features import photo
from twincar.features.photo import EXIF_TRANSPOSE, load_photo

ENVIRONMENT = os.environ | {"COLUMNS": "200", "NO_COLOR": "1", "TERM": "dumb", "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> dict[str, hostile_files.Case]:
    """The corpus as files: path -> case. One name is not UTF-8, if the file system allows it."""
    folder = tmp_path_factory.mktemp("hostile")
    written = {str(case.put(folder)): case for case in cases()}
    valid = hostile_files.Case("no-utf-8.jpg", hostile_files.valid_files()["baseline.jpg"], hostile_files.ANSWER)
    try:
        path = folder / os.fsdecode(b"no-utf-8-\xff.jpg")
        path.write_bytes(valid.content)
    except OSError:
        return written
    return written | {str(path): valid}


def run(*words: str) -> subprocess.CompletedProcess:
    done = subprocess.run([sys.executable, *words], capture_output=True, env=ENVIRONMENT, timeout=600, check=False)
    done.stdout, done.stderr = (text.decode("utf-8", "backslashreplace") for text in (done.stdout, done.stderr))
    assert "Traceback" not in done.stderr, done.stderr
    return done


def test_the_corpus_has_enough_cases_of_each_kind():
    corpus = cases()
    assert len(corpus) >= 150 and len({case.id for case in corpus}) == len(corpus)
    assert sum(case.expected == hostile_files.ANSWER for case in corpus) >= 60
    assert sum(bool(case.expected) for case in corpus) >= 50
    assert not any(
        is_sentence(text) for text in ("", "two\nlines.", "broken (OSError(22)).", "no end", "a file /tmp/x.")
    )


@pytest.mark.slow
def test_the_predictor_handles_all_within_its_limits(tiny_model):
    done = run("-m", "tests.helpers.hostile_files", "--model", str(tiny_model))
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line["id"] for line in lines] == [case.id for case in cases()]
    wrong = [line for case, line in zip(cases(), lines, strict=True) if not as_expected(case, line.get("error"))]
    assert not wrong
    assert lines[-1]["megabytes"] < 2500


@pytest.mark.slow
def test_the_command_line_handles_all_in_one_run(folder, tiny_model):
    at = str(Path(next(iter(folder))).parent)
    done = run("-m", "twincar", "predict", at, "--model", str(tiny_model), "--top", "1", "--json")
    assert done.returncode == 1
    results = {line["file"]: line.get("error") for line in map(json.loads, done.stdout.splitlines())}
    pictures = [path for path in folder if Path(path).suffix.lower() in (".jpg", ".png", ".tif", ".heic")]
    pictures = [path for path in pictures if not Path(path).name.startswith(".")]  # hidden files are a system's
    assert results.keys() >= set(pictures) and results.keys() <= folder.keys()
    assert not {path: error for path, error in results.items() if not as_expected(folder[path], error)}


@pytest.mark.slow
def test_names_do_not_affect_the_terminal(folder, tiny_model):
    names = [path for path, case in folder.items() if case.id.startswith(("name-", "no-utf-8"))]
    done = run("-m", "twincar", "predict", *names, "--model", str(tiny_model), "--top", "1")
    assert done.returncode == 1
    assert len(done.stdout.splitlines()) == 3 * (len(names) - 2)  # file name, sentence, top guess
    assert len(done.stderr.splitlines()) == 2 * 2
    assert "\x1b" not in done.stdout + done.stderr and "\u202e" not in done.stdout
    assert "[red]markup[_red].jpg" in done.stdout and "سيارة.jpg" in done.stdout and "🚗💨.jpg" in done.stdout
    assert "[_bold] broken [_].jpg" in done.stderr


def test_a_path_that_is_not_a_file_is_an_error(tiny_model):
    words = ["x" * 5000 + ".jpg", "nowhere/[/].jpg", "/dev/zero", os.devnull]
    done = run("-m", "twincar", "predict", *words, "--model", str(tiny_model))
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert lines[::2] == words and all(is_sentence(line.strip()) for line in lines[1::2]), done.stderr


@pytest.mark.slow
def test_the_script_scores_the_corpus(folder, tiny_model, tmp_path):
    at = str(Path(next(iter(folder))).parent)
    table = tmp_path / "table.csv"
    done = run("twin_car_testing.py", at, "--model", str(tiny_model), "--out", str(table))
    assert done.returncode == 0, done.stderr
    with table.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    names = {utf8(Path(path).relative_to(at)): case for path, case in folder.items()}
    assert not [row for row in rows if not as_expected(names[row["file"]], row["error"] or None)]
    assert all(bool(row["predicted"]) != bool(row["error"]) for row in rows)


@pytest.mark.slow
def test_the_api_handles_each(site, car_photo):
    """With plain HTTP requests, so that file names are sent unchanged."""
    wrong = []
    with httpx.Client(base_url=f"{site[0]}/gradio_api", timeout=120) as client:
        for case in cases():
            sent = client.post("/upload", files={"files": (case.file or case.id, case.content)})
            assert sent.status_code == 200, (case.id, sent.text)
            [path] = sent.json()
            upload = {"path": path, "orig_name": case.file or case.id, "meta": {"_type": "gradio.FileData"}}
            event = client.post("/call/identify", json={"data": [upload]}).json()["event_id"]
            answer = client.get(f"/call/identify/{event}").text
            kind, data = (line.partition(": ")[2] for line in answer.strip().splitlines()[-2:])
            error = json.loads(data)["error"] if kind == "error" else None
            wrong += [] if as_expected(case, error) else [(case.id, answer)]
    assert not wrong
    answer, _ = Client(site[0], verbose=False).predict(photo=handle_file(car_photo), api_name="/identify")
    assert answer["top"]
    assert "Traceback" not in site[1].read_text()


@pytest.mark.slow
def test_the_api_handles_all_at_once(site, folder):
    client = Client(site[0], verbose=False)
    sent = [path for path in folder if "\udcff" not in path]  # Gradio's client cannot send that name
    rows = client.predict(photos=[handle_file(path) for path in sent], api_name="/many")["rows"]
    assert len(rows) == len(sent)
    for row, case in zip(rows, (folder[path] for path in sent), strict=True):
        assert row["file"].isprintable()
        assert as_expected(case, row.get("error")), (case.id, row)


PICKED = ["page.jpg", "declares-100000x100000.png", "baseline-5-tenths.jpg", "iphone.heic", "16x20000.png", "name-13"]


@pytest.mark.parametrize("wanted", PICKED)
def test_the_page_handles_it_and_the_next_photo(browser, site, car_photo, tmp_path, wanted):
    case = next(case for case in cases() if case.id == wanted)
    with visiting(browser, site) as page:
        page.set_input_files("#photo input[type=file]", case.put(tmp_path))
        if case.expected == hostile_files.ANSWER:
            expect(page.locator("#headline .answer")).to_be_visible()
            expect(page.locator("#slider img")).to_have_count(2)
        else:
            expect(page.locator("#headline .trouble p").first).to_contain_text(case.expected)
            assert is_sentence(page.locator("#headline .trouble p").first.inner_text())
        page.set_input_files("#photo input[type=file]", car_photo)
        expect(page.locator("#headline .answer")).to_be_visible()


def test_names_are_displayed_as_text_on_the_page(browser, site, tmp_path):
    named = [case for case in cases() if case.id.startswith("name-")]
    with visiting(browser, site, "/?tab=many") as page:
        page.on("dialog", lambda dialog: pytest.fail("a file name was executed"))
        page.set_input_files("#files input[type=file]", [case.put(tmp_path) for case in named])
        expect(page.locator("#status")).to_contain_text(
            re.compile(rf"{len(named) - 2} photos answered, .*2 could not be read")
        )
        names = page.locator("#table tbody td.file").all_inner_texts()
        assert len(names) == len(named)
        assert any("سيارة" in name for name in names) and any("🚗" in name for name in names)
        assert page.locator("#table tbody td.file img").count() == 0


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "WEBP", "TIFF", "AVIF", "HEIC"])
def test_every_orientation_of_every_format_is_turned_upright(kind, turn):
    back = {6: Image.Transpose.ROTATE_90, 8: Image.Transpose.ROTATE_270}.get(turn, EXIF_TRANSPOSE.get(turn))
    stored = CAR if back is None else CAR.transpose(back)
    tags = exif(turn)
    content = heic(stored, exif=tags.tobytes()) if kind == "HEIC" else encode(stored, kind, exif=tags, quality=95)
    answer = load_photo(content)
    assert answer.size == CAR.size and not answer.info  # no EXIF that would rotate a saved copy again
    assert np.abs(np.asarray(answer, float) - np.asarray(CAR, float)).mean() < 15


@pytest.mark.parametrize("name", ["iphone.heic", "colour.avif"])
def test_a_format_without_decoder_is_an_error(name, monkeypatch):
    monkeypatch.setattr(photo, "FORMATS", ("JPEG", "PNG"))
    with pytest.raises(PhotoError, match=r"^This file is not a picture that can be read: send a photo as JPEG, PNG, "):
        load_photo(hostile_files.valid_files()[name])


def test_an_error_holds_no_reference_to_the_picture():
    """A batch keeps the errors of its photos; they must not keep the decoded data in memory."""
    with pytest.raises(PhotoError) as refusal:
        load_photo(encode(CAR, "PNG")[:5000])
    assert refusal.value.__cause__ is None and refusal.value.__context__ is None


def test_the_memory_of_a_batch_is_bounded(tiny_model, monkeypatch):
    """Large photos are predicted in smaller batches."""
    from twincar import Predictor
    from twincar.modeling.inference import predictor

    monkeypatch.setattr(predictor, "MAX_PIXELS", 3 * CAR.width * CAR.height)
    predictor = Predictor.from_pretrained(tiny_model)
    sizes, run = [], predictor.run
    monkeypatch.setattr(predictor, "run", lambda images: sizes.append(len(images)) or run(images))
    predictions = predictor.batch([CAR, CAR, b"", CAR, CAR], batch_size=16)
    assert sizes == [3, 1] and len(predictions) == 5


@pytest.mark.slow
def test_a_corpus_can_be_written(tmp_path):
    done = run("-m", "tests.helpers.hostile_files", str(tmp_path / "corpus"))
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "corpus").iterdir())) == len(cases())
