"""A head in closed form, and classes that are added from a few photos, on the command line and in Python."""

import re
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from torch.nn.functional import cross_entropy
from typer.testing import CliRunner

from tests.conftest import CLASSES, draw_car
from tests.helpers.configs import config_of
from twincar import Predictor
from twincar.cli import app
from twincar.config import TwinCarError
from twincar.data.table import load_table
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.model_folder import CarModel, ModelError
from twincar.modeling.inference.new_classes import Framed, read_examples
from twincar.modeling.networks.closed_form_head import FILE, ClassStatistics
from twincar.modeling.publishing import fit_head

BEFORE, NEW = CLASSES[:4], CLASSES[4]  # the fifth is drawn in a color that none of the others has
TWO_LAYERS = {"architecture": {"name": "resnet18", "head": "two_layer"}, "class_names": BEFORE, "input": {"size": 64}}


def twincar(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200", "TERM": "dumb"})


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A folder with `data`, photos of a new car in `new/NEW`, and `model` of four classes after `fit-head`."""
    folder = tmp_path_factory.mktemp("classes")
    for label, name in enumerate(BEFORE):
        (folder / "cars" / name.replace("/", "-")).mkdir(parents=True)
        for seed in range(12):
            draw_car(label, seed).save(folder / "cars" / name.replace("/", "-") / f"{seed}.jpg")
    (folder / "new" / NEW).mkdir(parents=True)
    for seed in range(4):
        draw_car(4, seed).save(folder / "new" / NEW / f"{seed}.jpg")
    torch.manual_seed(0)
    model_folder.save(CarModel(TWO_LAYERS), folder / "model")
    assert twincar("prepare", folder / "cars", "--out", folder / "data").exit_code == 0
    done = twincar("fit-head", "--model", folder / "model", "--data", folder / "data")
    assert done.exit_code == 0, done.output
    return folder


@pytest.fixture(scope="module")
def widened(fitted):
    """The model folder after `add-classes`, and the command's output."""
    done = twincar("add-classes", fitted / "new", "--model", fitted / "model", "--out", fitted / "wider")
    assert done.exit_code == 0, done.output
    return fitted / "wider", done.output


def right(predictor, label, name) -> float:
    answers = predictor.batch([draw_car(label, seed) for seed in range(50, 60)], refine=False)
    return float(np.mean([answer.top(1)[0].class_name == name for answer in answers]))


def test_the_head_in_closed_form_needs_no_training(fitted):
    """The network has random weights: whatever the model is right about comes from the new head."""
    predictor = Predictor.from_pretrained(fitted / "model")
    assert np.mean([right(predictor, label, name) for label, name in enumerate(BEFORE)]) > 0.85
    config = config_of(fitted / "model")
    assert config["architecture"]["head"] == "linear" and config["scores"]["pictures"] == 5


def test_a_new_class_is_recognized_and_the_others_keep_their_logits(fitted, widened):
    old, new = Predictor.from_pretrained(fitted / "model"), Predictor.from_pretrained(widened[0])
    assert new.class_names == (*BEFORE, NEW) and f"{NEW}: 4 photos" in widened[1]
    assert right(new, 4, NEW) > 0.8
    for label in range(4):
        photo = draw_car(label, 70)
        assert (new(photo, refine=False).logits[:4] == old(photo, refine=False).logits).all()
    assert new(draw_car(4, 71), refine=False).overlay(NEW).size == (160, 120)


def test_classes_lists_what_was_added_and_remove_class_takes_it_back(fitted, widened, tmp_path):
    listed = twincar("classes", "--model", widened[0]).output
    assert "5 classes" in listed and re.search(rf"{NEW}\W+4\W+20\d\d-\d\d-\d\d", listed), listed
    assert twincar("remove-class", NEW, "--model", widened[0], "--out", tmp_path / "back").exit_code == 0
    before, after = (model_folder.load(folder).network.fc for folder in (fitted / "model", tmp_path / "back"))
    assert torch.equal(before.weight, after.weight) and torch.equal(before.bias, after.bias)
    again = twincar("add-classes", fitted / "new", "--model", tmp_path / "back", "--out", tmp_path / "again")
    assert again.exit_code == 0
    assert torch.equal(*(model_folder.load(folder).network.fc.weight for folder in (widened[0], tmp_path / "again")))


def test_a_class_of_the_training_can_be_removed(widened, tmp_path):
    done = twincar("remove-class", BEFORE[1], "--model", widened[0], "--out", tmp_path / "less")
    assert done.exit_code == 0, done.output
    less = Predictor.from_pretrained(tmp_path / "less")
    assert less.class_names == (BEFORE[0], *BEFORE[2:], NEW) and right(less, 4, NEW) > 0.8


def test_in_python_the_first_predictor_stays_as_it_is(fitted):
    predictor = Predictor.from_pretrained(fitted / "model")
    photo = draw_car(4, 80)
    before = predictor(photo).probabilities
    wider = predictor.with_classes({NEW: [draw_car(4, seed) for seed in range(3)]})
    assert wider(photo).top(1)[0].class_name == NEW and wider.engine is predictor.engine
    assert predictor.class_names == tuple(BEFORE) and (predictor(photo).probabilities == before).all()
    widest = wider.with_classes({"Lada Niva SUV 1995": [draw_car(0, seed).rotate(90) for seed in (1, 2)]})
    assert len(widest(photo).probabilities) == 6 and widest(photo).top(1)[0].class_name == NEW


def test_photos_that_do_not_fit_are_named(fitted):
    predictor = Predictor.from_pretrained(fitted / "model")
    cars = [draw_car(4, 1), draw_car(4, 1), b"no picture", Framed(draw_car(4, 2), (10, 10, 150, 110))]
    examples = read_examples(predictor, "  Trabant  601 ", [*cars, Framed(draw_car(4, 3), (10, 10, 1500, 110))])
    assert (examples.name, examples.count) == ("Trabant 601", 2)
    reasons = dict(examples.skipped)
    assert reasons["photo 2"] == "the same picture as photo 1" and reasons.keys() == {"photo 2", "photo 3", "photo 5"}
    assert "2 of the photos can be used" in examples.notes[-1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("no-such-folder",), "Give one folder"),
        (("empty",), "has no folders with photos"),
        (("new", "--name", CLASSES[0].upper()), "already has the class"),
        (("new", "--name", " "), "A class name has"),
        (("new", "--name", "x" * 200), "A class name has"),
        (("broken.jpg", "--name", "Trabant 601"), "No photo of 'Trabant 601' can be used (broken.jpg: "),
        (("new", "--model", "untaught"), "run `twincar fit-head`"),
    ],
)
def test_refusals_are_one_sentence_and_nothing_is_written(fitted, monkeypatch, tmp_path, words, sentence):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(fitted / "new", tmp_path / "new")
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken.jpg").write_bytes(b"no picture")
    config = model_folder.load(fitted / "model").config
    model_folder.save(
        CarModel({key: config[key] for key in config if key != "class_statistics"}), tmp_path / "untaught"
    )
    model = () if "--model" in words else ("--model", fitted / "model")
    done = twincar("add-classes", *words, *model, "--out", tmp_path / "mine")
    assert done.exit_code == 2 and sentence in done.output.replace("\n", " "), done.output
    assert not (tmp_path / "mine").exists()


def test_a_trained_head_that_is_better_stays_and_takes_new_classes(fitted, tmp_path):
    """The head is trained on the validation pictures too, so none in closed form can have a higher likelihood there."""
    model = model_folder.load(fitted / "model")
    predictor = Predictor(model, engine="torch:f32")
    table = load_table(fitted / "data")
    answers = predictor.batch(table["path"].tolist(), refine=False)
    pooled = torch.stack([answer.features.float().mean((1, 2)) for answer in answers])
    labels = [BEFORE.index(name) for name in table["class_name"]]
    trained = LogisticRegression(C=1e4, max_iter=2000).fit(pooled, labels)
    for parameter, value in zip(model.network.fc.parameters(), (trained.coef_, trained.intercept_), strict=True):
        parameter.data = torch.from_numpy(value).half().float()
    model.class_statistics = None
    del model.config["class_statistics"]
    folder = model_folder.save(model, tmp_path / "trained")
    before = load_file(folder / "model.safetensors")
    done = twincar("fit-head", "--model", folder, "--data", fitted / "data")
    assert done.exit_code == 0 and "The trained head is in" in done.output, done.output
    after = load_file(folder / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert "computed from them in closed form" not in (folder / "README.md").read_text()
    kept = Predictor.from_pretrained(folder)
    wider = kept.with_classes({NEW: [draw_car(4, seed) for seed in range(4)]})
    assert right(wider, 4, NEW) > 0.8
    old = np.mean([[right(each, label, name) for label, name in enumerate(BEFORE)] for each in (kept, wider)], axis=1)
    assert old[1] >= old[0] - 0.05


def test_a_head_that_would_lose_accuracy_is_not_used(fitted, tmp_path, monkeypatch):
    folder = tmp_path / "model"
    model_folder.save(CarModel(TWO_LAYERS), folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    monkeypatch.setattr("twincar.modeling.publishing.fit_head.MAX_TOP1_LOSS", -2.0)
    done = twincar("fit-head", "--model", folder, "--data", fitted / "data")
    assert done.exit_code == 2 and "the model stays as it is" in done.output.replace("\n", " ")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    linear = shutil.copytree(fitted / "model", tmp_path / "linear")  # takes new classes with the head that it has
    done = twincar("fit-head", "--model", linear, "--data", fitted / "data")
    assert done.exit_code == 0 and "The trained head is in" in done.output, done.output


def test_damaged_statistics_are_refused_in_one_sentence(fitted, tmp_path):
    shutil.copytree(fitted / "model", tmp_path / "model")
    (tmp_path / "model" / FILE).write_bytes(b"{}")
    with pytest.raises(ModelError, match="do not match its config"):
        Predictor.from_pretrained(tmp_path / "model")
    with pytest.raises(TwinCarError, match="run `twincar fit-head` again"):
        ClassStatistics.load(tmp_path / "model" / FILE)


def gaussians(classes: int, size: int, photos: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pictures of `classes` normal classes with one covariance, their labels, and other pictures of them."""
    generator = torch.Generator().manual_seed(seed)
    means = 2 * torch.randn(classes, 1, size, generator=generator)
    mixing = torch.eye(size) + 0.3 * torch.randn(size, size, generator=generator)
    drawn = means + torch.randn(classes, 2 * photos, size, generator=generator) @ mixing
    labels = torch.arange(classes).repeat_interleave(photos)
    return drawn[:, :photos].flatten(0, 1), labels, drawn[:, photos:].flatten(0, 1)


def test_the_head_is_that_of_linear_discriminant_analysis():
    x, y, others = gaussians(classes=6, size=12, photos=40, seed=0)
    reference = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=1e-3, priors=[1 / 6] * 6).fit(x.numpy(), y.numpy())
    weight, bias = ClassStatistics.fit(x, y, 6, shrinkage=1e-3).head()
    same = (others @ weight.T + bias).argmax(1).numpy() == reference.predict(others.numpy())
    assert same.mean() > 0.97


@pytest.mark.parametrize("photos", [1, 2, 5, 20])
def test_a_class_from_few_photos_is_no_likelier_elsewhere_than_the_others(photos):
    """The mean of few photos is moved towards the center, from where every picture would look like the new class."""
    x, y, _ = gaussians(classes=60, size=40, photos=40, seed=3)
    old, new = y < 30, y >= 30
    statistics = ClassStatistics.fit(x[old], y[old], 30, shrinkage=0.1)
    examples = x[new].unflatten(0, (30, -1))[:, :photos].mean(1)
    weight, bias = statistics.with_classes(examples, torch.full((30,), photos)).head()
    lengths, logits = weight.norm(dim=1), (x[old] @ weight.T + bias).mean(0)
    assert float(lengths[30:].mean()) == pytest.approx(float(lengths[:30].mean()), rel=0.3)
    assert float(logits[30:].mean()) == pytest.approx(float(logits[:30].mean()), rel=0.3)


@given(st.integers(2, 8), st.integers(2, 20), st.integers(0, 1000), st.integers(1, 4), st.sampled_from([1, 1e-4, 1e6]))
def test_added_classes_change_no_other_logit_and_survive_the_file(tmp_path_factory, classes, size, seed, added, unit):
    x, y, _ = gaussians(classes, size, photos=5, seed=seed)
    x *= unit
    statistics = ClassStatistics.fit(x, y, classes)
    weight, bias = statistics.head()
    assert weight.isfinite().all() and bias.isfinite().all()
    wider = statistics.with_classes(torch.randn(added, size), torch.arange(1, added + 1))
    more, offset = wider.head()
    assert more.shape == (classes + added, size) and torch.equal(more[:classes], weight)
    assert torch.equal(offset[:classes], bias)
    for _ in range(added):
        wider = wider.without(classes)
    assert torch.equal(wider.head()[0], weight)
    again, _ = ClassStatistics.load(statistics.save(tmp_path_factory.mktemp("file"))).head()
    assert torch.allclose(again, weight, rtol=0.05, atol=0.05 * float(weight.abs().max()))


@pytest.mark.parametrize("spread", [1.0, 0.03])
def test_the_scale_is_right_for_classes_that_training_has_moved_far_apart(spread):
    """Pictures of the training lie close to their means, others do not: the logits are in the thousands."""
    x, y, others = gaussians(classes=6, size=12, photos=40, seed=1)
    others += 4 * torch.randn(others.shape, generator=torch.Generator().manual_seed(2))  # or none would be wrong
    means = ClassStatistics.fit(x, y, 6).means
    statistics = ClassStatistics.fit(means[y] + spread * (x - means[y]), y, 6)
    best, loss = fit_head._best(statistics, others, y)
    weight, bias = best.head()
    logits = others @ weight.T + bias
    losses = [float(cross_entropy(logits * factor, y)) for factor in np.geomspace(1e-3, 1e3, 200)]
    assert loss == pytest.approx(float(cross_entropy(logits, y)), rel=1e-4)
    assert loss <= min(losses) * 1.001
    assert spread == 1 or 1 / best.scale > 20


@pytest.mark.parametrize("labels", [[0, 0, 1, 1], [0, 1, 2]])
def test_too_few_pictures_for_statistics_are_refused(labels):
    with pytest.raises(TwinCarError, match="too few for class statistics"):
        ClassStatistics.fit(torch.randn(len(labels), 4), torch.tensor(labels), 3)
