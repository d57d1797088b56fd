"""Accessibility of the page by axe-core, as the browser's own checks (Lighthouse among them) see it."""

from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page


def violations(page: Page) -> list[str]:
    """The violations of axe-core's rules on what is shown now: "critical button-name ×2: <button …>"."""
    return [
        f"{rule['impact']} {rule['id']} ×{len(rule['nodes'])}: {rule['nodes'][0]['html'][:160]}"
        for rule in Axe().run(page).response["violations"]
    ]
