"""Nothing is sent anywhere unasked: commands and page as processes of a new user, whose lookups are recorded.

A new user has an empty HOME and no variable `CI`, with which many libraries keep silent.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from gradio_client import Client, handle_file
from PIL import Image

from tests.conftest import official
from tests.helpers.hub_server import TOKEN, HubServer
from tests.helpers.visit import served
from twincar.cli import app
from twincar.config import CHECKOUT

# Caches that save work, and nothing else, may be left in HOME.
KEPT = {".cache", ".config", ".ray"}
CACHES = {"fontconfig", "huggingface", "matplotlib", "torch", "twincar"}
# Ray asks in which cloud it runs, whatever its settings; it sends that nowhere.
CLOUDS = {"169.254.169.254", "metadata.google.internal"}
CI = ("CI", "TF_BUILD", "JENKINS_URL", "GITHUB_ACTIONS")

COMMANDS = """
import json, sys
from twincar.cli import app
for command in json.loads(sys.argv[1]):
    try:
        app(command)
    except SystemExit as done:
        assert not done.code or command[0] == "quantize", (command, done.code)  # may refuse int8
"""

IMPORTS = """
import ast, importlib, sys
from pathlib import Path
nodes = [node for file in Path("twincar").rglob("*.py") for node in ast.walk(ast.parse(file.read_text("utf-8")))]
names = {name.name for node in nodes if isinstance(node, ast.Import) for name in node.names}
names |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
import twincar
for name in sorted(names):
    importlib.import_module(name)
assert {"gradio", "lightning", "onnxruntime", "openvino", "ray"} <= set(sys.modules)
"""


@pytest.fixture
def newcomer(tmp_path, monkeypatch) -> dict[str, str]:
    """Variables of a process with an empty HOME whose lookups and connections are recorded in tmp_path/network.txt."""
    recorder = f"{CHECKOUT / 'tests' / 'helpers' / 'recorder'}{os.pathsep}{CHECKOUT}"
    ours = ("TWINCAR_", "GRADIO_", "HF_", "XDG_", "RAY_", "ORT_", *CI)
    for name in [name for name in os.environ if name.startswith(ours) and name != "TWINCAR_CACHE"]:
        monkeypatch.delenv(name)
    (tmp_path / "home").mkdir()
    (tmp_path / "network.txt").touch()
    return {"PYTHONPATH": recorder, "HOME": str(tmp_path / "home"), "NETWORK_LOG": str(tmp_path / "network.txt")}


def run(newcomer: dict[str, str], *arguments: object) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TWINCAR_CACHE"} | newcomer
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "recorder lets nothing" not in done.stderr


def assert_silent(newcomer: dict[str, str]) -> None:
    lines = Path(newcomer["NETWORK_LOG"]).read_text().splitlines()
    assert [line for line in lines if line.split()[1] not in CLOUDS] == []
    home = Path(newcomer["HOME"])
    assert {path.name for path in home.iterdir()} <= KEPT
    assert {path.name for path in home.glob(".cache/*")} <= CACHES


def test_a_prediction(newcomer, tiny_model, car_photo):
    run(newcomer, "-m", "twincar", "predict", car_photo, "--model", tiny_model)
    assert list(Path(newcomer["HOME"]).glob(".cache/twincar/engines/*.openvino"))  # it was OpenVINO
    assert_silent(newcomer)


def test_the_page(newcomer, tiny_model, car_photo, tmp_path):
    with served(tmp_path, TWINCAR_MODEL=str(tiny_model), **newcomer) as (url, _):
        answer = Client(url, verbose=False).predict(handle_file(str(car_photo)), api_name="/identify")
    assert answer
    assert_silent(newcomer)


@pytest.mark.slow
def test_everything_that_is_imported(newcomer):
    run(newcomer, "-c", IMPORTS)
    assert_silent(newcomer)


@pytest.mark.slow
def test_every_command(newcomer, tiny_model, car_folders, car_photo, tmp_path):
    backgrounds, cropped = tmp_path / "backgrounds", official(tmp_path / "official")
    backgrounds.mkdir()
    for row in range(20):
        noise = np.random.default_rng(row).integers(90, 160, (10, 14, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((160, 120)).save(backgrounds / f"{row}.jpg")
    data, run_folder, model, reports = (tmp_path / name for name in ("data", "run", "run/model", "reports"))
    fit = ("--model", model, "--data", data, "--not-cars", backgrounds)
    commands = [
        ("prepare", car_folders, "--out", data, "--val-size", 0.25, "--statistics"),
        ("crop", "--root-dir", cropped, "--output-dir", tmp_path / "cropped"),
        ("train", "--data", data, "--recipe", "lite", "--init", "none", "--epochs", 1, "--size", 64, "--batch-size", 4,
         "--accelerator", "cpu", "--out", run_folder),
        ("publish", run_folder, "--data", data, "--out", model),
        ("quantize", "--model", model, "--data", data),
        ("fit-head", "--model", model, "--data", data),
        ("fit-detector", *fit, "--scenes", 96),
        ("fit-open-set", *fit),
        ("evaluate", "--model", model, "--data", data),
        ("report", "--model", model, "--data", data, "--out", reports, "--run", run_folder),
        ("compare", "--reports", reports),
        ("predict", car_photo, "--model", model),
        ("predict", car_photo, "--model", model, "--engine", "ray", "--out", tmp_path / "results.jsonl"),
        ("explain", car_photo, "--model", model, "--out", tmp_path / "why.png"),
        ("add-classes", car_photo, "--name", "Saab 900 Sedan 1985", "--model", model, "--out", tmp_path / "wider"),
        ("classes", "--model", tmp_path / "wider"),
        ("remove-class", "Saab 900 Sedan 1985", "--model", tmp_path / "wider", "--out", tmp_path / "wider"),
        ("export", "--model", model, "--to", "onnx", "--out", tmp_path / "twincar.onnx"),
        ("export", "--model", model, "--to", "openvino", "--out", tmp_path / "twincar.xml"),
        ("push", tiny_model, "someone/cars"),
        ("pull", "someone/cars", "--out", tmp_path / "pulled"),
        ("space", "someone/page", "--model", "someone/cars"),
    ]  # fmt: skip
    assert {command[0] for command in commands} == {
        command.name or command.callback.__name__ for command in app.registered_commands
    }
    (tmp_path / "served").mkdir()
    with HubServer(tmp_path / "served") as hub:
        variables = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HUB_DISABLE_XET": "1"}
        run(newcomer | variables, "-c", COMMANDS, json.dumps([[str(word) for word in words] for words in commands]))
        hub.shutdown()
    assert_silent(newcomer)
