"""The snippets of README and docs are run as printed: shell, Python and JavaScript of every page, from top to bottom.

pytest tests/docs

Each page gets a folder like a reader's. Placeholders are replaced (`INSTEAD`), and commands that take hours or need the
network are left out (`NOT_RUN`).
"""

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client
from typer.testing import CliRunner

from tests.conftest import CLASSES, draw_car
from tests.helpers.hub_server import TOKEN
from tests.helpers.visit import served
from twincar import Predictor
from twincar.cli import app
from twincar.config import CHECKOUT, PUBLISHED
from twincar.modeling.hub import model_folder
from twincar.modeling.networks.closed_form_head import ClassStatistics
from twincar.modeling.training import recipes

# Pages that train, export or serve
LONG = ("README.md", "adding-a-recipe.md", "calling.md", "teaching.md", "your-own-cars.md")
PAGES = [*sorted(CHECKOUT.glob("*.md")), *sorted((CHECKOUT / "docs").glob("*.md"))]
# Tested elsewhere: the page, cropping (which needs boxes), Ray, 8 bits, fitting the detector and open-set data.
NOT_RUN = (
    "pip install",
    "make ",
    "TWINCAR_",
    "twincar crop",
    "twincar predict s3",
    "twincar quantize",
    "twincar fit-detector",
    "twincar fit-open-set",
)
INSTEAD = (
    ("SOURCE", "photos"),
    ("user/repo", "someone/cars"),
    ("user/space", "someone/page"),
    ("--init imagenet", "--init none --size 32 --batch-size 8 --epochs 1"),
    ("--epochs 12", ""),
    ('init="imagenet"', 'init="none"'),
    ("    epochs=12,\n", "    epochs=1, sizes=((0.0, 32),), eval_size=32, batch_size=8,\n"),
)
MADE = {  # files that the commands of a page write
    "speed.md": ("answers.csv",),
    "README.md": ("why.png", "predictions.csv", "runs/flagship/model/README.md", "models/copy/config.json", "car.onnx"),
    "calling.md": ("car.onnx",),
    "teaching.md": ("models/mine/class_statistics.safetensors",),
    "your-own-cars.md": ("data/cars.csv", "runs/mine/model/class_statistics.safetensors"),
    "adding-a-recipe.md": ("runs/gentle/recipe.json", "runs/gentle/model/model.safetensors"),
}


@pytest.fixture(scope="module")
def address(site):
    return site[0]


@pytest.fixture(scope="module")
def model(tiny_model, tmp_path_factory) -> Path:
    """The tiny model, with class statistics."""
    torch.manual_seed(0)
    made, labels = model_folder.load(tiny_model), torch.arange(40) % len(CLASSES)
    made.class_statistics = ClassStatistics.fit(torch.randn(40, 512), labels, len(CLASSES))
    made.config["class_statistics"] = {"pictures": 40}
    return model_folder.save(made, tmp_path_factory.mktemp("model") / "with_statistics")


@pytest.fixture
def here(tmp_path, model, car_photo, hub, monkeypatch) -> Path:
    """A reader's folder: a checkout, some photos, and an account on the Hub."""
    folder = tmp_path / "here"
    (folder / "folder").mkdir(parents=True)
    (folder / "models").mkdir()
    for name in ("docs", "twin_car_testing.py"):
        (folder / name).symlink_to(CHECKOUT / name)
    (folder / "models" / "twincar").symlink_to(model)
    shutil.copy(car_photo, folder / "photo.jpg")
    shutil.copy(car_photo, folder / "folder" / "1.jpg")
    for label, name in enumerate(("Citroen 2CV Sedan 1948", "Lada Niva SUV 1977", "a third")):
        (folder / "photos" / name).mkdir(parents=True)
        for seed in range(10):
            draw_car(label, seed).save(folder / "photos" / name / f"{seed}.jpg")
    for label, name in ((3, "new/Tesla Model 3 Sedan 2021"), (4, "model_y")):
        (folder / name).mkdir(parents=True)
        for seed in range(3):
            draw_car(label, seed).save(folder / name / f"{seed}.jpg")
    (folder / "labels.csv").write_text("file,class_name\n1.jpg,BMW M3 Coupe 2012\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setattr(recipes, "RECIPES", dict(recipes.RECIPES))
    return folder


def blocks(page: Path) -> list[tuple[str, str]]:
    """(language, text) of each fenced block."""
    return re.findall(r"^```(\w+)\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


def shell(text: str) -> None:
    lines = [line for line in text.splitlines() if line and not line.startswith(NOT_RUN)]
    environment = os.environ | {
        "PYTHONPATH": str(CHECKOUT),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }
    if any("$" in line for line in lines):  # variables: one script
        lines = ["set -e -o pipefail\n" + "\n".join(lines)]
    for line in lines:
        words = shlex.split(line, comments=True)
        if words[0] == "twincar":  # in this process, which has imported torch already
            done = CliRunner().invoke(app, words[1:])
            assert done.exit_code == 0, f"{line}\n{done.output}"
        else:
            done = subprocess.run(["bash", "-c", line], env=environment, capture_output=True, text=True, timeout=120)
            assert done.returncode == 0, f"{line}\n{done.stdout}{done.stderr}"
            if "curl" in line:
                assert "class_name" in done.stdout


def javascript(text: str, here: Path) -> None:
    if not shutil.which("node") or not (CHECKOUT / "node_modules" / "@gradio" / "client").is_dir():
        return  # needs `npm install @gradio/client` in the checkout
    (here / "node_modules").symlink_to(CHECKOUT / "node_modules")
    (here / "identify.mjs").write_text(text)
    done = subprocess.run(["node", "identify.mjs"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and "/gradio_api/file=" in done.stdout, done.stdout + done.stderr


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.name, marks=[pytest.mark.slow] if page.name in LONG else []) for page in PAGES]
)
def test_every_line_works_as_printed(page, here, address, capsys):
    names: dict = {"__name__": "__main__"}  # common to the Python blocks of a page
    for language, text in blocks(page):
        text = text.replace("http://127.0.0.1:7860", address)
        for word, instead in INSTEAD:
            text = text.replace(word, instead)
        if language == "sh":
            shell(text)
        elif language == "js":
            javascript(text, here)
        elif language == "python":
            exec(compile(text, page.name, "exec"), names)
    for name in MADE.get(page.name, ()):
        assert (here / name).exists(), name


# What each way of calling.md must do without, and the start of its block there
ALONE = {
    "curl": ("curl -F", ()),
    "gradio_client": ("from gradio_client", ("torch", "timm", "transformers")),
    "timm": ("import timm", ("transformers", "gradio_client")),
    "transformers": ("from transformers", ("gradio_client",)),
    "onnxruntime": ("import json, numpy, onnxruntime", ("torch", "timm", "transformers", "gradio_client")),
}


@pytest.mark.slow
def test_every_way_to_call_it_prints_the_same_car(tmp_path, monkeypatch):
    """The published model's own example, with curl or one library only: at most five lines each."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "twincar").symlink_to(PUBLISHED)
    shutil.copy(PUBLISHED / "example.jpg", "photo.jpg")
    expected = Predictor.from_pretrained(PUBLISHED, engine="torch:f32")("photo.jpg").top(1)[0].class_name
    shell("twincar export --to onnx --out car.onnx")
    texts = [text for _, text in blocks(CHECKOUT / "docs" / "calling.md")]
    with served(tmp_path, TWINCAR_MODEL=str(PUBLISHED)) as (url, _):
        for way, (start, without) in ALONE.items():
            (text,) = (text for text in texts if text.startswith(start))
            assert len([line for line in text.splitlines() if line]) <= 5, way
            text = text.replace("http://127.0.0.1:7860", url)
            if way != "curl":
                block = "".join(f"sys.modules[{name!r}] = None\n" for name in ("twincar", *without))
                text = f"{sys.executable} -c {shlex.quote(f'import sys{chr(10)}{block}{text}')}"
            done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, timeout=300)
            assert done.returncode == 0, f"{way}\n{done.stderr}"
            lines = [line for line in done.stdout.splitlines() if not line.startswith("Loaded as API")]  # gradio_client
            first = json.loads(done.stdout)["top"][0]["class_name"] if way == "curl" else lines[0]
            assert re.sub(r"^ *[\d.]+%  ", "", first) == expected, way


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_have_targets(page):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8")):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_the_commands_of_the_reliability_report_select_tests():
    report = (CHECKOUT / "reports" / "reliability.md").read_text(encoding="utf-8")
    commands = re.findall(r'`pytest (\S+\.py)(?: -k (".*?"|\w+))?`', report)
    assert len(commands) > 30
    for file, keywords in commands:
        tests = re.findall(r"^def (test_\w+)", (CHECKOUT / file).read_text(encoding="utf-8"), re.MULTILINE)
        for keyword in keywords.strip('"').split(" or "):
            assert any(keyword in test for test in tests), f"{file} -k {keyword}"


def test_assistants_find_tools_with_names_and_descriptions(address):
    async def tools():
        url = f"{address}/gradio_api/mcp/"
        async with streamable_http_client(url) as (read, write, _), ClientSession(read, write) as session:
            await session.initialize()
            return (await session.list_tools()).tools

    known = {tool.name: tool for tool in asyncio.run(tools())}
    assert known.keys() == {"identify", "answer_many"}
    for tool in known.values():
        assert tool.description.startswith("Identify every car in ")
        assert not re.search(r",\s*,|\w,\w|, (?=[A-Z])", tool.description), tool.description  # Gradio's between lines
        assert "Args:" not in tool.description and " Returns: " in tool.description
        assert all(field.get("description") for field in tool.inputSchema["properties"].values())
    tool = known["identify"]
    assert "said (" in tool.description and "state: " in tool.description
    assert tool.inputSchema["required"] == ["photo"]
    assert "A picture file" in tool.inputSchema["properties"]["photo"]["description"]
