"""Security headers of the page, and no requests to third parties."""

import os
import shutil

import httpx
import pytest
from playwright.sync_api import expect

from tests.helpers.visit import QUIET, visiting
from twincar.ui.headers import HEADERS


@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info", "/gradio_api/file=/etc/passwd", "/nowhere"])
def test_every_response_has_the_headers(site, path):
    response = httpx.get(site[0] + path)
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS


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


def test_hugging_face_may_frame_it_and_others_may_not(browser, site):
    # Lets a page of the "internet" frame one on this machine, as if both were on the internet.
    options = {"args": [*QUIET, "--disable-features=LocalNetworkAccessChecks"]}
    chromium = os.environ.get("CHROMIUM") or shutil.which("chromium")
    outside = browser.browser_type.launch(executable_path=chromium, **options)
    frame = {"body": f'<iframe src="{site[0]}"></iframe>', "content_type": "text/html"}
    page, other = outside.new_page(), outside.new_page()
    page.route("https://huggingface.co/", lambda route: route.fulfill(**frame))
    other.route("https://evil.example/", lambda route: route.fulfill(**frame))
    page.goto("https://huggingface.co/")
    expect(page.frame_locator("iframe").get_by_role("heading", name="TwinCar", exact=True)).to_be_visible()
    with other.expect_event("requestfailed") as refused:
        other.goto("https://evil.example/")
    assert refused.value.failure == "net::ERR_BLOCKED_BY_RESPONSE"
    outside.close()
