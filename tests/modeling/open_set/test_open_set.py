"""Detector and open-set data: fitted on the command line, saved with the weights, used by the Predictor."""

import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.conftest import CLASSES, draw_car
from tests.helpers.configs import config_of
from tests.helpers.fake_predictor import fake_predictor
from twincar import Predictor
from twincar.cli import app
from twincar.config import TwinCarError
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.model_folder import CarModel, ModelError
from twincar.modeling.open_set.open_set import FILE, OpenSet

NAMES = CLASSES[:3]


def twincar(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Cars in folders by class, backgrounds without cars, and a tiny model of those classes."""
    folder = tmp_path_factory.mktemp("fit")
    for label, name in enumerate(NAMES):
        (folder / "cars" / name).mkdir(parents=True)
        for seed in range(12):
            draw_car(label, seed).save(folder / "cars" / name / f"{seed}.jpg")
    (folder / "backgrounds").mkdir()
    rng = np.random.default_rng(0)
    for row in range(24):
        background = Image.fromarray(rng.integers(90, 160, (10, 14, 3), dtype=np.uint8)).resize((160, 120))
        background.save(folder / "backgrounds" / f"{row}.jpg")
    (folder / "backgrounds" / "broken.jpg").write_bytes(b"no picture")
    torch.manual_seed(0)
    config = {"architecture": {"name": "resnet18"}, "class_names": NAMES, "input": {"size": 64}}
    model_folder.save(CarModel(config), folder / "model")
    assert twincar("prepare", folder / "cars", "--out", folder / "data").exit_code == 0
    return folder


@pytest.fixture(scope="module")
def fitted(source):
    """The model folder after `fit-detector` and `fit-open-set`, its probabilities before, and the commands' output."""
    before = Predictor.from_pretrained(source / "model")(draw_car(1, 50), refine=False).probabilities
    options = ("--model", source / "model", "--data", source / "data", "--not-cars", source / "backgrounds")
    done = [twincar("fit-detector", *options, "--scenes", 96), twincar("fit-open-set", *options)]
    for each in done:
        assert each.exit_code == 0, each.output
    return source / "model", before, "".join(each.output for each in done)


def test_fitting_does_not_change_the_probabilities(fitted):
    model, before, output = fitted
    assert "mean IoU" in output
    assert "24 photos without cars" in output
    after = Predictor.from_pretrained(model)
    assert np.array_equal(after(draw_car(1, 50), refine=False).probabilities, before)
    config = config_of(model)
    assert config["detector"]["not_cars"] == config["open_set"]["not_cars"] == 24
    best = config["open_set"]["not_a_car"][0]
    assert 0.5 < best["auroc"] <= 1
    assert 0 <= best["fpr95"] <= 1
    assert "open_set.safetensors" in (model / "README.md").read_text()


def test_thresholds_reject_the_chosen_fraction(fitted, source):
    """5 % of the three validation pictures: the lowest score is below the threshold."""
    from twincar.data.table import load_table

    table = load_table(source / "data")
    predictor = Predictor.from_pretrained(fitted[0])
    predictions = [predictor(path, refine=False) for path in table.loc[table["split"] == "val", "path"]]
    assert sum(answer.is_car for answer in predictions) >= len(predictions) - 1
    assert sum(answer.is_known for answer in predictions) >= len(predictions) - 1


def test_backgrounds_score_lower_than_cars(fitted, source):
    predictor = Predictor.from_pretrained(fitted[0])
    backgrounds = [predictor(path).car_score for path in sorted((source / "backgrounds").glob("[0-9]*.jpg"))]
    cars = [predictor(draw_car(seed % 3, 100 + seed)).car_score for seed in range(12)]
    assert np.median(cars) > np.quantile(backgrounds, 0.9)


def test_similar_classes_have_their_confusions(fitted):
    answer = Predictor.from_pretrained(fitted[0])(draw_car(0))
    similar = answer.similar_classes(NAMES[0], k=5)
    assert {one.class_name for one in similar} == set(NAMES[1:])
    assert similar[0].cosine >= similar[1].cosine
    assert all(-1.001 <= one.cosine <= 1.001 and one.confusions >= 0 for one in similar)


def test_a_changed_or_missing_file_is_rejected(fitted, tmp_path):
    copy = shutil.copytree(fitted[0], tmp_path / "model")
    (copy / FILE).write_bytes((copy / FILE).read_bytes()[:-1] + b"\1")
    with pytest.raises(ModelError, match="do not match its config"):
        Predictor.from_pretrained(copy)
    (copy / FILE).unlink()
    with pytest.raises(ModelError, match=FILE):
        Predictor.from_pretrained(copy)
    (copy / FILE).write_bytes(b"junk")
    with pytest.raises(TwinCarError, match="twincar fit-open-set"):
        OpenSet.load(copy / FILE)


def test_too_few_photos_without_cars(source, tmp_path):
    for command in ("fit-detector", "fit-open-set"):
        done = twincar(command, "--model", source / "model", "--data", source / "data", "--not-cars", tmp_path)
        assert done.exit_code == 2
        assert "has 0 readable photos: at least 20" in done.output


# The Predictor, with a detector that returns fixed boxes --------------------------------------------------------------


@pytest.fixture(scope="module")
def scene():
    """A car in the lower right quarter of a photo of 640 by 480."""
    photo = Image.new("RGB", (640, 480), (120, 140, 120))
    photo.paste(draw_car(3, size=(320, 240)), (320, 240))
    return photo


def test_the_second_pass_is_of_the_car_only(scene):
    answer = fake_predictor((0.5, 0.5, 1, 1))(scene)
    assert answer.refined
    assert np.abs(np.array(answer.box) - (320, 240, 640, 480)).max() <= 12
    heat = answer.heatmap()
    assert heat.shape == (480, 640)
    assert not heat[:200].any()
    assert not heat[:, :280].any()
    assert answer.overlay().size == scene.size
    assert np.array_equal(np.asarray(answer.overlay())[:200], np.asarray(scene)[:200])
    once = fake_predictor((0.5, 0.5, 1, 1))(scene, refine=False)
    assert (once.box, once.refined) == (None, False)
    assert not np.allclose(once.probabilities, answer.probabilities)


def test_a_car_that_fills_the_photo_gets_one_pass(scene):
    answer = fake_predictor((0.02, 0.03, 0.97, 0.98))(scene)
    assert not answer.refined
    assert answer.box is not None
    assert np.allclose(answer.probabilities, fake_predictor()(scene).probabilities)


def test_a_box_by_hand_is_what_is_classified(scene):
    predictor = fake_predictor((0.0, 0.0, 0.5, 0.5))
    by_hand = predictor(scene, box=(320, 240, 640, 480))
    assert by_hand.box == (320, 240, 640, 480)
    found = fake_predictor((0.5, 0.5, 1, 1))
    assert np.allclose(by_hand.logits, found(scene).logits, atol=0.2)
    with pytest.raises(TwinCarError, match="is not inside this photo of 640 by 480 pixels"):
        predictor(scene, box=(0, 0, 641, 480))
    with pytest.raises(TwinCarError, match="with left < right and top < bottom"):
        predictor(scene, box=(50, 50, 40, 90))


def test_several_cars_are_sorted_by_size(scene):
    answer = fake_predictor((0.0, 0.1, 0.25, 0.4), (0.4, 0.4, 1, 1))(scene)
    (other,) = answer.others
    assert answer.box[0] > 200
    assert other[2] < 200
    assert fake_predictor()(scene).box is None


def test_is_car_and_is_known_follow_the_thresholds(scene):
    assert fake_predictor()(scene).is_car
    assert fake_predictor()(scene).is_known
    assert fake_predictor(is_car=1e9)(scene).is_car is False
    assert fake_predictor(is_known=1e9)(scene).is_known is False
    plain = fake_predictor()
    plain._context = plain._context._replace(open_set=None)
    answer = plain(scene)
    assert (answer.is_car, answer.is_known, answer.box, answer.others, answer.similar_classes()) == (
        None,
        None,
        None,
        [],
        [],
    )


def test_sums_over_makes_models_and_bodies(scene):
    answer = fake_predictor()(scene)
    assert sum(answer.makes().values()) == pytest.approx(1, abs=1e-5)
    assert list(answer.makes().values()) == sorted(answer.makes().values(), reverse=True)
    assert answer.makes()["Audi"] == pytest.approx(answer.probability("Audi TT Hatchback 2011"))
    assert answer.models()["Audi TT Hatchback"] == pytest.approx(answer.probability("Audi TT Hatchback 2011"))
    assert set(answer.bodies()) == {"Coupe", "Hatchback", "Minivan", "Convertible", "SUV"}


def test_a_batch_gives_the_results_of_single_photos(scene):
    predictor = fake_predictor((0.5, 0.5, 1, 1))
    single = predictor(scene).probabilities
    for answer in predictor.batch([scene, scene.resize((320, 240)), scene]):
        assert answer.refined
    assert np.allclose(predictor.batch([scene, scene])[1].probabilities, single, atol=1e-5)


def test_a_small_car_in_a_large_photo_is_classified_at_full_resolution(tmp_path):
    """Also where photos are decoded no larger than one pass needs them."""
    photo = Image.new("RGB", (4000, 3000), (120, 140, 120))
    photo.paste(draw_car(3, size=(1000, 750)), (2400, 1800))
    photo.save(tmp_path / "large.jpg", quality=95)
    predictor = fake_predictor((0.6, 0.6, 0.85, 0.85))
    whole = predictor(tmp_path / "large.jpg")
    (answer, again) = predictor.stream([tmp_path / "large.jpg", (tmp_path / "large.jpg").read_bytes()], full_size=False)
    assert answer.photo.size == (1000, 750)
    assert answer.in_full(answer.box) == pytest.approx(whole.box, abs=4)  # rounded to pixels of the smaller photo
    small = predictor(answer.photo.copy())  # without a larger one

    def distance(other):
        return float(np.abs(other.logits - whole.logits).max())

    assert distance(answer) == distance(again) < 0.8 * distance(small)


def test_a_photo_deleted_between_the_passes_is_classified_from_what_was_read(tmp_path, monkeypatch):
    draw_car(3, size=(2400, 1800)).save(tmp_path / "large.jpg")
    predictor = fake_predictor((0.6, 0.6, 0.85, 0.85))
    run_passes = predictor._passes

    def run_and_delete(pictures, parts):
        (tmp_path / "large.jpg").unlink(missing_ok=True)
        return run_passes(pictures, parts)

    monkeypatch.setattr(predictor, "_passes", run_and_delete)
    (answer,) = predictor.stream([tmp_path / "large.jpg"], full_size=False)
    assert answer.refined
