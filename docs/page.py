"""Take the README's picture: the page with its answer for one photo.

pip install -e '.[dev]' && python docs/page.py photo.jpg       # needs Chromium, as `chromium` or where CHROMIUM says
"""

import os
import shutil
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import expect, sync_playwright

from twincar import Predictor
from twincar.config import CHECKOUT, PUBLISHED
from twincar.ui import page

predictor = Predictor.from_pretrained(PUBLISHED)
demo = page.build(predictor, reports=CHECKOUT / "reports")
_, address, _ = demo.launch(**page.launch_options(predictor), prevent_thread_lock=True, quiet=True)
with sync_playwright() as playwright:
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
    tab = browser.new_page(viewport={"width": 1060, "height": 1150})
    tab.goto(address)
    tab.set_input_files("#photo input[type=file]", sys.argv[1])
    expect(tab.locator("#slider img")).to_have_count(2, timeout=60_000)
    tab.wait_for_timeout(1500)  # until the pictures of the slider are painted
    picture = Image.open(BytesIO(tab.screenshot())).convert("RGB")
    picture.save(Path(__file__).with_name("page.png"), optimize=True)
    browser.close()
demo.close()
