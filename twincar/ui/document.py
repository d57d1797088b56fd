"""The HTML document of the page: title and description for search engines and link previews, a first picture, gzip.

Gradio sends its own name, picture and address in the tags of a link preview, and, before an empty body that stays white
until its scripts have run, 300 kB of uncompressed settings. `Document` is ASGI middleware that changes the document on
its way out, so that a first picture of the page is painted before any script runs, and lets browsers keep the files
under /assets, whose names contain a hash of their content.
"""

import gzip
import re
from html import escape
from pathlib import Path

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HERE = Path(__file__).parent
TITLE = "TwinCar: which car is this?"
DESCRIPTION = (
    "Upload a photo of a car. TwinCar names the make, model and year, says how sure it is, and shows what in the photo "
    "gave it away."
)
PICTURE = HERE / "preview.jpg"  # 1200 × 630 pixels, the size that link previews show in full
PICTURE_PATH = "/preview.jpg"
KEEP = "public, max-age=31536000, immutable"
PREVIEW = re.compile(r'\s*<meta\s+(property="og:|name="twitter:)[^>]*>')
SETTINGS = re.compile(
    r"<script>window\.gradio_config = .*?</script>(<script>window\.gradio_api_info = .*?</script>)?", re.S
)
MODULE = re.compile(r'<script type="module" crossorigin src="([^"]+)"></script>')
# After the first picture is painted; a tab in the background paints nothing, hence the time limit.
START = """<script>(() => {
  let started = false;
  const start = () => {
    const script = Object.assign(document.createElement("script"), { type: "module", src: "ADDRESS" });
    if (!started) document.head.append(script);
    started = true;
  };
  requestAnimationFrame(() => setTimeout(start));
  setTimeout(start, 1000);
})();</script>"""
SHELL = (HERE / "shell.html").read_text(encoding="utf-8")


class Document:
    """ASGI middleware for the document at / and the caching of the files under /assets."""

    def __init__(self, app: ASGIApp):
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Run the application; change what it sends where it is the document."""
        if scope["type"] != "http" or scope["method"] not in ("GET", "HEAD"):
            await self.app(scope, receive, send)
        elif scope["path"].startswith("/assets/"):
            await self.app(scope, receive, _cached(send))
        elif scope["path"] == "/":
            await self.app(scope, receive, _Rewritten(scope, send))
        else:
            await self.app(scope, receive, send)


def rewrite(html: str, address: str) -> str:
    """Gradio's document with the page's own tags for previews, and a first picture until the scripts have run.

    Args:
        html: The document as Gradio sends it.
        address: Where the page is served, such as "https://example.org/".
    """
    picture = address.rstrip("/") + PICTURE_PATH
    tags = {
        "description": DESCRIPTION,
        "og:type": "website",
        "og:site_name": "TwinCar",
        "og:title": TITLE,
        "og:description": DESCRIPTION,
        "og:url": address,
        "og:image": picture,
        "og:image:width": "1200",
        "og:image:height": "630",
        "og:image:alt": "A car in a photo, with its name and a heatmap of the evidence",
        "twitter:card": "summary_large_image",
    }
    head = "".join(
        f'<meta {"property" if name.startswith("og:") else "name"}="{name}" content="{escape(content)}">'
        for name, content in tags.items()
    )
    html = PREVIEW.sub("", html)
    html = html.replace("</head>", f"{head}</head>", 1)
    html = re.sub(r"(<body[^>]*>)", lambda found: found[1] + SHELL, html, count=1)
    settings, module = SETTINGS.search(html), MODULE.search(html)
    if not settings or not module:  # another version of Gradio: slower, and nothing else
        return html
    html = html.replace(settings[0], "", 1).replace(module[0], f'<link rel="modulepreload" href="{module[1]}">', 1)
    before, end, after = html.rpartition("</body>")
    return before + settings[0] + START.replace("ADDRESS", module[1]) + end + after


def _cached(send: Send) -> Send:
    async def send_cached(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] == 200:
            MutableHeaders(scope=message)["Cache-Control"] = KEEP
        await send(message)

    return send_cached


class _Rewritten:
    """Collects the parts of a response, and sends it rewritten and compressed."""

    def __init__(self, scope: Scope, send: Send):
        self.scope, self.send = scope, send
        self.start: Message = {}
        self.body = b""

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.start = message
            return
        self.body += message.get("body", b"")
        if message.get("more_body"):
            return
        headers = MutableHeaders(scope=self.start)
        if self.body and headers.get("content-type", "").startswith("text/html") and "content-encoding" not in headers:
            html = rewrite(self.body.decode(), str(Request(self.scope).base_url))
            self.body = html.encode()
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in Headers(scope=self.scope).get("accept-encoding", ""):
                self.body = gzip.compress(self.body, 6)
                headers["Content-Encoding"] = "gzip"
            headers["Content-Length"] = str(len(self.body))
        await self.send(self.start)
        await self.send({"type": "http.response.body", "body": self.body})
