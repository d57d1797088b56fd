"""Security headers of the page, and no requests to third parties."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect

from tests.helpers.visit import QUIET, served, visiting
from twincar.config import TwinCarError
from twincar.ui.headers import headers

MINE = "https://cars.example https://*.cars.example:8443"


@pytest.fixture(scope="module")
def site(tiny_model, tmp_path_factory) -> Iterator[tuple[str, Path]]:
    """A page that may be embedded in two sites more."""
    folder = tmp_path_factory.mktemp("site")
    with served(folder, TWINCAR_MODEL=str(tiny_model), TWINCAR_FRAME_ANCESTORS=MINE) as running:
        yield running


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/nowhere"])
def test_every_response_has_the_headers(site, path):
    response, expected = httpx.get(site[0] + path), headers(MINE)
    assert {name: response.headers.get(name) for name in expected} == expected


def test_sites_that_may_embed_the_page_are_added_and_checked(monkeypatch):
    default = headers("")["Content-Security-Policy"]
    assert headers(MINE)["Content-Security-Policy"] == f"{default} {MINE}"  # the last part of the policy
    assert headers("*")["Content-Security-Policy"].endswith("https://*.hf.space *")
    for value in (
        "https://a.example; script-src *",
        "https://a.example,b",
        "javascript:",
        "https://",
        "a\r\nX: y",
        "é.de",
    ):
        monkeypatch.setenv("TWINCAR_FRAME_ANCESTORS", value)
        with pytest.raises(TwinCarError, match=r"^TWINCAR_FRAME_ANCESTORS .* is not an address of a site"):
            headers()


@pytest.mark.slow
def test_every_tab_works_under_them_without_third_party_requests(browser, site, car_photo):
    """`visiting` fails on any request to another host and on any error in the console, such as a blocked request."""
    with visiting(browser, site) as page:
        page.set_input_files("#photo input[type=file]", car_photo)
        expect(page.locator("#slider img")).to_have_count(2)
        page.get_by_role("button", name="Why this car and not another?").click()
        expect(page.locator("#difference-picture img")).to_be_visible()
        for tab in page.get_by_role("tab").all():
            tab.click()
            expect(tab).to_have_attribute("aria-selected", "true")
        page.wait_for_timeout(1000)
        assert page.evaluate("document.cookie") == ""
    page, foreign = browser.new_page(), []  # not `visiting`: Gradio's API panel requests a disabled page, an error
    page.on(
        "request", lambda request: request.url.startswith((site[0], "data:", "blob:")) or foreign.append(request.url)
    )
    page.goto(site[0])
    page.get_by_role("button", name="Use via API").click()
    expect(page.locator(".api-docs")).to_be_visible()
    page.wait_for_timeout(1000)
    assert foreign == []
    page.close()


def test_hugging_face_and_named_sites_may_frame_it_and_others_may_not(browser, site):
    # Lets a page of the "internet" frame one on this machine, as if both were on the internet.
    options = {"args": [*QUIET, "--disable-features=LocalNetworkAccessChecks"]}
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    outside = browser.browser_type.launch(executable_path=chromium, **options)
    frame = {"body": f'<iframe src="{site[0]}"></iframe>', "content_type": "text/html"}
    for address in ("https://huggingface.co/", "https://www.cars.example:8443/"):
        page = outside.new_page()
        page.route(address, lambda route: route.fulfill(**frame))
        page.goto(address)
        expect(page.frame_locator("iframe").get_by_role("heading", name="TwinCar", exact=True)).to_be_visible()
    other = outside.new_page()
    other.route("https://evil.example/", lambda route: route.fulfill(**frame))
    with other.expect_event("requestfailed") as refused:
        other.goto("https://evil.example/")
    assert refused.value.failure == "net::ERR_BLOCKED_BY_RESPONSE"
    outside.close()
