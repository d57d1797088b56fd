"""Security headers of every response; `page.launch_options` adds the middleware.

Gradio needs inline scripts and styles and builds functions from strings, so a stricter policy leaves the page blank.
The policy still forbids loading from and sending to other hosts, and framing by any host other than Hugging Face, whose
Spaces are frames. `tests/ui/test_headers.py` opens every tab under it. To embed the page in a site of your own:

    TWINCAR_FRAME_ANCESTORS="https://example.org https://*.example.org" python app.py
"""

import os
import re
from contextlib import suppress

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from twincar.config import TwinCarError

VARIABLE = "TWINCAR_FRAME_ANCESTORS"  # sites that may embed the page, separated by spaces
SITE = re.compile(r"\*|https?:|(https?://)?(\*\.)?[a-z0-9-]+(\.[a-z0-9-]+)*(:(\d+|\*))?/?", re.IGNORECASE)  # of CSP

POLICY = {
    "default-src": "'self'",
    "script-src": "'self' 'unsafe-inline' 'unsafe-eval' blob:",
    "style-src": "'self' 'unsafe-inline'",
    "img-src": "'self' data: blob:",
    "media-src": "'self' data: blob:",  # the camera
    "font-src": "'self' data:",
    "worker-src": "'self' blob:",
    "object-src": "'none'",
    "base-uri": "'self'",
    "form-action": "'self'",
    "frame-ancestors": "'self' https://huggingface.co https://*.huggingface.co https://*.hf.space",
}
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), microphone=(), geolocation=(), payment=(), usb=()",
}


def headers(sites: str | None = None) -> dict[str, str]:
    """The security headers.

    Args:
        sites: Further sites that may embed the page, separated by spaces; by default those in VARIABLE.

    Raises:
        TwinCarError: A site is not an address as the Content-Security-Policy allows it.
    """
    ancestors = (os.environ.get(VARIABLE, "") if sites is None else sites).split()
    for site in ancestors:
        if not SITE.fullmatch(site):
            raise TwinCarError(
                f"{VARIABLE} contains {site!r}, which is not an address of a site: give https://example.org."
            )
    policy = POLICY | {"frame-ancestors": " ".join([POLICY["frame-ancestors"], *ancestors])}
    return {"Content-Security-Policy": "; ".join(f"{name} {sources}" for name, sources in policy.items()), **HEADERS}


class SecurityHeaders:
    """ASGI middleware that sets headers on every response, replacing those of the application."""

    def __init__(self, app: ASGIApp, headers: dict[str, str]):
        self.app, self.headers = app, headers

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application with the headers added."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(self.headers)
            await send(message)

        with suppress(ClientDisconnect):  # a client that disconnects needs no traceback in the log
            await self.app(scope, receive, send_with_headers)
