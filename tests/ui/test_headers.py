"""What the page tells browsers, and what it asks of others: nothing."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.helpers.visit import QUIET, served, visiting
from twincar.ui.headers import HEADERS


@pytest.fixture(scope="module")
def site(tiny_model, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    with served(tmp_path_factory.mktemp("site"), TWINCAR_MODEL=str(tiny_model)) as running:
        yield running


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/nowhere"])
def test_every_response_has_the_headers(site, path):
    response = httpx.get(site[0] + path)
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


def test_every_tab_works_under_them_and_asks_no_third_party(browser, site, car_photo):
    """`visiting` fails on any request to another host and on any error in the console: so a refusal would be one."""
    with visiting(browser, site) as page:
        page.set_input_files("#photo input[type=file]", car_photo)
        expect(page.locator("#slider img")).to_have_count(2)
        page.get_by_role("button", name="Why this car and not another?").click()
        expect(page.locator("#apart-picture img")).to_be_visible()
        for tab in page.get_by_role("tab").all():
            tab.click()
            expect(tab).to_have_attribute("aria-selected", "true")
        page.wait_for_timeout(1000)
        assert page.evaluate("document.cookie") == ""
    page, strangers = browser.new_page(), []  # Gradio's own panel asks for what this page has switched off: an error
    page.on("request", lambda asked: asked.url.startswith((site[0], "data:", "blob:")) or strangers.append(asked.url))
    page.goto(site[0])
    page.get_by_role("button", name="Use via API").click()
    expect(page.locator(".api-docs")).to_be_visible()
    page.wait_for_timeout(1000)
    assert strangers == []
    page.close()


def test_hugging_face_may_frame_it_and_others_may_not(browser, site):
    # A Chromium that lets a page of the "internet" frame one on this machine, as if both were on the internet.
    options = {"args": [*QUIET, "--disable-features=LocalNetworkAccessChecks"]}
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    outside = browser.browser_type.launch(executable_path=chromium, **options)
    frame = {"body": f'<iframe src="{site[0]}"></iframe>', "content_type": "text/html"}
    page, stranger = outside.new_page(), outside.new_page()
    page.route("https://huggingface.co/", lambda route: route.fulfill(**frame))
    stranger.route("https://evil.example/", lambda route: route.fulfill(**frame))
    page.goto("https://huggingface.co/")
    expect(page.frame_locator("iframe").get_by_role("heading", name="TwinCar", exact=True)).to_be_visible()
    with stranger.expect_event("requestfailed") as refused:
        stranger.goto("https://evil.example/")
    assert refused.value.failure == "net::ERR_BLOCKED_BY_RESPONSE"
    outside.close()
