"""Draw docs/beetle.svg, let the page answer it, and take the README's picture of that.

pip install -e '.[dev]' && python docs/page.py       # needs Chromium, as `chromium` or where CHROMIUM says
"""

import os
import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image
from playwright.sync_api import expect, sync_playwright

DOCS = Path(__file__).resolve().parent
sys.path.insert(0, str(DOCS.parent))

from tests.helpers.visit import QUIET, served  # noqa: E402  the page as the tests serve it

EXAMPLE = DOCS.parent / "models" / "twincar" / "example.jpg"
CAR = {"x": 60, "y": 190, "width": 1080, "height": 540}

with TemporaryDirectory() as folder, served(Path(folder)) as (address, _), sync_playwright() as playwright:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    browser = playwright.chromium.launch(executable_path=chromium, args=list(QUIET))

    page = browser.new_page(viewport={"width": 1200, "height": 800})
    page.goto((DOCS / "beetle.svg").as_uri())
    page.screenshot(path=Path(folder) / "car.png", clip=CAR)
    Image.open(Path(folder) / "car.png").convert("RGB").save(EXAMPLE, quality=88)

    page = browser.new_page(viewport={"width": 1060, "height": 900})
    page.goto(address)
    page.set_input_files("#photo input[type=file]", EXAMPLE)
    expect(page.locator("#slider img")).to_have_count(2, timeout=60_000)
    page.wait_for_timeout(1500)  # for the slider's pictures to be painted
    page.screenshot(path=Path(folder) / "page.png")
    Image.open(Path(folder) / "page.png").convert("RGB").save(DOCS / "page.png", optimize=True)
    browser.close()
