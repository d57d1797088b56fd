"""The wheel works without the checkout: built from it, unpacked elsewhere, run from an empty folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import CLASSES
from twincar import __version__
from twincar.config import CHECKOUT


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """A folder with the wheel's files only."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    shutil.copytree(CHECKOUT / "twincar", source / "twincar", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source]  # no network
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.iterdir()
    assert wheel.name == f"twincar-{__version__}-py3-none-any.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(out / "site")
    return out / "site"


def twincar(installed: Path, folder: Path, *words):
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment |= {"PYTHONPATH": str(installed), "COLUMNS": "200"}
    command = [sys.executable, "-m", "twincar", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


def test_the_wheel_has_every_file_of_the_package(installed):
    def files(root: Path) -> set[str]:
        return {
            path.relative_to(root).as_posix()
            for path in (root / "twincar").rglob("*")
            if path.is_file() and path.suffix != ".pyc"
        }

    assert files(installed) == files(CHECKOUT)
    assert "twincar/py.typed" in files(installed)
    metadata = next(installed.glob("*.dist-info")).joinpath("METADATA").read_text()
    assert "\nRequires-Dist: torch" in metadata and "\nProvides-Extra: export" in metadata


@pytest.mark.slow
def test_predict_works_from_an_empty_folder(installed, tiny_model, car_photo, tmp_path):
    done = twincar(installed, tmp_path, "predict", car_photo, "--model", tiny_model, "--top", 1)
    assert done.returncode == 0, done.stderr
    assert any(name in done.stdout for name in CLASSES)

    done = twincar(installed, tmp_path, "predict", car_photo)
    assert done.returncode == 2
    assert "There is no model in models/twincar: pass a folder or a Hub repo" in done.stderr

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "twincar").symlink_to(tiny_model)  # as `twincar pull user/repo --out models/twincar` would
    assert twincar(installed, tmp_path, "predict", car_photo).returncode == 0
    assert "from a checkout" in twincar(installed, tmp_path, "space", "someone/page", "--dry-run").stderr
