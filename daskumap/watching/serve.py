"""A page of this machine alone, with a picture that is renewed."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from daskumap.errors import ParameterError
from daskumap.watching.sights import Sight

HOST = "127.0.0.1"
# What a browser may call this machine; another name is that of a page elsewhere which would read this one.
NAMES = ("127.0.0.1", "localhost", "[::1]")
PAGE = b"""<!doctype html><html lang="en"><meta charset="utf-8"><title>daskumap</title>
<meta name="viewport" content="width=device-width"><style>:root{color-scheme:light dark}
body{font:1rem system-ui,sans-serif;margin:1rem;text-align:center}img{max-width:100%;max-height:85vh}</style>
<p id="text" role="status">waiting for the run</p><img id="map" alt="The map as it forms" hidden>
<script>
let seen = -1, over = false;
async function look() {
  try {
    const now = await (await fetch("state")).json();
    document.getElementById("text").textContent = now.text;
    if (now.number !== seen && now.png) {
      const map = document.getElementById("map");
      map.src = "map.png?" + now.number;
      map.hidden = false;
    }
    seen = now.number; over = now.over;
  } catch { document.getElementById("text").textContent += over ? "" : " (no longer served)"; over = true; }
  if (!over) setTimeout(look, 1000);
}
look();
</script></html>"""
HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; connect-src 'self'; "
    "style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'",
}


class Page:
    """Serves the newest sight while it is entered.

    Parameters
    ----------
    port
        0 for a free one.

    Raises
    ------
    ParameterError
        If the port cannot be had.
    """

    def __init__(self, port: int) -> None:
        if isinstance(port, bool) or not isinstance(port, int) or not 0 <= port < 65536:
            raise ParameterError(f"port is {port!r}; it must be an integer from 0, for a free one, to 65535.")
        self.number, self.sight, self.png = 0, Sight("waiting for the run", None), b""
        try:
            self.server = ThreadingHTTPServer((HOST, port), _handler(self))
        except OSError as error:
            raise ParameterError(
                f"Port {port} of {HOST} cannot be had: {error.strerror}. Name another, or 0 for a free one."
            ) from error
        self.server.daemon_threads = True
        self.looked, self.seen_last = False, threading.Event()
        self.url = f"http://{HOST}:{self.server.server_port}/"

    def __enter__(self) -> Page:
        threading.Thread(target=self.server.serve_forever, name="daskumap-page", daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def show(self, sight: Sight) -> None:
        """Serve a sight from now on."""
        self.png, self.sight, self.number = sight.png or self.png, sight, self.number + 1

    def linger(self, seconds: float) -> None:
        """Wait until whoever looks has seen the last sight; not if nobody looks."""
        if self.looked:
            self.seen_last.wait(seconds)

    def state(self) -> bytes:
        """Return what the page asks for each second."""
        known = {"number": self.number, "text": self.sight.text, "over": self.sight.over}
        return json.dumps({**known, "png": bool(self.png)}).encode()


def _handler(page: Page) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.headers.get("Host", "").rpartition(":")[0] not in NAMES:
                return self._send(403, "text/plain", b"This page is of this machine alone.")
            path, page.looked = self.path.partition("?")[0], True
            if path == "/":
                return self._send(200, "text/html; charset=utf-8", PAGE)
            if path == "/state":
                return self._send(200, "application/json", page.state())
            if path == "/map.png" and page.png:
                self._send(200, "image/png", page.png)
                return page.seen_last.set() if page.sight.over else None
            return self._send(404, "text/plain", b"There is no such page.")

        def _send(self, code: int, kind: str, content: bytes) -> None:
            self.send_response(code)
            for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(content))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Say nothing: what a browser asks for is no news of a run."""

    return Handler
