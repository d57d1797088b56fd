"""Predictors and answers in other processes: after fork, and as pickles."""

import copy
import multiprocessing
import pickle
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
import torch

from tests.conftest import CLASSES, draw_car
from twincar import Predictor
from twincar.config import TwinCarError
from twincar.modeling.engines import choose
from twincar.modeling.engines.base import BatchingEngine, EngineError
from twincar.modeling.hub import model_folder
from twincar.modeling.hub.model_folder import ModelError

forks = pytest.mark.skipif(sys.platform == "win32", reason="no fork")
WORKER = """
import os, sys
from PIL import Image
from twincar import Predictor
predictor = Predictor.from_pretrained(sys.argv[1], engine="openvino:f32")
predictor(Image.new("RGB", (99, 99)))
if child := os.fork():
    sys.exit(os.waitpid(child, 0)[1])
predictor(Image.new("RGB", (99, 99)))
"""
SIZE = (1600, 1200)  # enough for OpenCV to resize it in several threads


def in_a_fork(work, timeout=60):
    """The result of `work()` in a forked child; fails if the child never answers."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    child = fork.Process(target=lambda: sender.send(work()))
    child.start()
    sender.close()
    try:
        assert receiver.poll(timeout), "the forked child hangs"
        return receiver.recv()
    finally:
        child.kill()
        child.join()


@forks
@pytest.mark.parametrize("engine", ["torch", "openvino:f32"])
def test_a_predictor_answers_in_a_forked_child(tiny_model, engine):
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        predictor = Predictor.from_pretrained(tiny_model, engine=engine)
        before = predictor(draw_car(0, size=SIZE))
        before.heatmap()

        def work():
            answer, *more = predictor.stream([draw_car(0, size=SIZE)] * 3)
            return answer.probabilities, answer.heatmap(CLASSES[1]), before.heatmap(CLASSES[1]), len(more)

        probabilities, *maps, more = in_a_fork(work)
    finally:
        torch.set_num_threads(threads)
    assert np.allclose(probabilities, before.probabilities, atol=1e-5)
    assert np.allclose(maps[0], maps[1], atol=1e-3)
    assert more == 2


@forks
@pytest.mark.slow
def test_a_forked_child_that_exits_by_itself(tiny_model):
    """As workers of web servers do; OpenVINO's engine, released there, would wait for the parent's threads."""
    assert subprocess.run([sys.executable, "-c", WORKER, tiny_model], timeout=300).returncode == 0


@forks
def test_a_lock_that_was_locked_during_the_fork(tiny_model):
    predictor = Predictor.from_pretrained(tiny_model, engine="torch")
    locked, done = threading.Event(), threading.Event()

    def lock():
        with predictor.engine._lock:
            locked.set()
            done.wait(60)

    thread = threading.Thread(target=lock)
    thread.start()
    locked.wait(10)
    try:
        assert in_a_fork(lambda: predictor(draw_car(0)).top(1)[0].class_name) in CLASSES
    finally:
        done.set()
        thread.join()


@forks
@pytest.mark.parametrize(
    ("reload", "message"),
    [
        (choose._refuse, "cannot use the GPU of its parent: start processes with the method spawn"),
        (lambda: choose._reload(lambda threads: 1 / 0), r"engine of its parent \(division by zero\): start processes"),
    ],
)
def test_an_engine_that_cannot_be_used_there_says_so(tiny_model, reload, message):
    predictor = Predictor.from_pretrained(tiny_model, engine="torch")
    predictor.engine = BatchingEngine(predictor.engine._engine, reload)

    def work():
        with pytest.raises(EngineError, match=message):
            predictor(draw_car(0))
        return True

    assert in_a_fork(work)
    assert predictor(draw_car(0))


def test_a_pickled_predictor_is_where_it_came_from(tiny_model, monkeypatch, tmp_path):
    monkeypatch.chdir(tiny_model.parent)
    predictor = Predictor.from_pretrained(tiny_model.name, engine="torch:bf16")
    data = pickle.dumps(predictor)
    assert len(data) < 1000
    monkeypatch.chdir(tmp_path)
    again = pickle.loads(data)
    assert again is not predictor
    assert again is pickle.loads(data)  # a pool unpickles it with every task
    assert again.engine.name == "torch:bf16"
    assert (again(draw_car(0)).probabilities == predictor(draw_car(0)).probabilities).all()
    assert copy.copy(predictor).engine is predictor.engine
    assert copy.deepcopy(predictor)(draw_car(0)).top(1) == predictor(draw_car(0)).top(1)


def test_a_pickled_predictor_of_a_hub_repo_is_its_commit(hub, tiny_model):
    cars = shutil.copytree(tiny_model, hub.root / "someone" / "cars")
    commit = hub.head("someone/cars", "main")
    predictor = Predictor.from_pretrained("someone/cars", token="hf_secret")
    data = pickle.dumps(predictor)
    assert commit.encode() in data and b"hf_secret" not in data
    (cars / "README.md").write_text("a new commit")
    hub.requests.clear()
    assert pickle.loads(data)(draw_car(0)).top(1) == predictor(draw_car(0)).top(1)
    assert not hub.requests  # a commit never changes


def test_a_changed_or_missing_model_is_said_when_it_is_unpickled(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    data = pickle.dumps(Predictor.from_pretrained(folder))
    other = model_folder.load(folder)
    with torch.no_grad():
        next(other.network.parameters()).zero_()
    model_folder.save(other, folder)
    with pytest.raises(ModelError, match="has changed since the Predictor was pickled"):
        pickle.loads(data)
    shutil.rmtree(folder)
    with pytest.raises(ModelError):
        pickle.loads(data)


def test_a_predictor_of_a_model_in_memory_is_pickled_with_it(tiny_model):
    model = model_folder.load(tiny_model)
    model.source = None
    predictor = Predictor(model)
    again = pickle.loads(pickle.dumps(predictor))
    assert (again(draw_car(0)).probabilities == predictor(draw_car(0)).probabilities).all()


def test_an_answer_is_pickled_as_its_arrays(tiny_model):
    predictor = Predictor.from_pretrained(tiny_model)
    answers = predictor.batch([draw_car(label) for label in range(3)])
    answer, again = answers[1], pickle.loads(pickle.dumps(answers))[1]
    network = sum(value.nbytes for value in predictor.network.state_dict().values())
    assert len(pickle.dumps(answer)) < network / 10
    for name in ("top", "makes", "models", "bodies", "similar_classes", "overlay", "heatmap", "__repr__"):
        first, second = getattr(answer, name)(), getattr(again, name)()
        assert np.array_equal(np.asarray(first), np.asarray(second)), name
    for name in ("is_car", "is_known", "box", "others", "state", "model", "energy", "refined"):
        assert getattr(answer, name) == getattr(again, name) or name == "energy", name
    assert torch.equal(again.features, answer.features)
    assert len(again.cars) == len(answer.cars)
    for draw in (lambda: again.heatmap(again.top(2)[1].class_name), lambda: again.difference(*CLASSES[:2])):
        with pytest.raises(TwinCarError, match=r"^This answer was pickled and has the evidence for its top class only"):
            draw()
    copied = copy.deepcopy(answer)
    assert np.array_equal(copied.difference(*CLASSES[:2]), answer.difference(*CLASSES[:2]))


@pytest.mark.slow
def test_a_pool_of_spawned_processes(tiny_model):
    predictor = Predictor.from_pretrained(tiny_model)
    photos = [draw_car(label) for label in range(3)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        answers = pool.map(predictor, photos)
    assert [answer.top(1) for answer in answers] == [predictor(photo).top(1) for photo in photos]
