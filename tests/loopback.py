"""A web server on the loopback interface, which can be made to misbehave as a test needs it."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass
class Site:
    """The server's files, its behavior, and the byte ranges that clients asked for.

    If they are set, it breaks a transfer off after ``breaks_after`` bytes, answers every request
    with ``status``, or redirects every request to ``redirect``.
    """

    files: dict[str, bytes] = field(default_factory=dict)
    takes_ranges: bool = True
    tells_length: bool = True
    breaks_after: int | None = None
    status: int = 200
    redirect: str = ""
    base: str = ""
    ranges: list[str | None] = field(default_factory=list)

    def url(self, name: str) -> str:
        """Return the address of a file."""
        return f"{self.base}/{name}"


class _Handler(http.server.BaseHTTPRequestHandler):
    site: ClassVar[Site]

    def do_GET(self) -> None:
        site = self.site
        wanted = self.headers.get("Range")
        site.ranges.append(wanted)
        content = site.files.get(self.path.lstrip("/"))
        if site.redirect:
            self.send_response(302)
            self.send_header("Location", site.redirect)
            self.end_headers()
        elif site.status != 200 or content is None:
            self.send_error(site.status if site.status != 200 else 404)
        else:
            self._send(content, wanted if site.takes_ranges else None)

    def _send(self, content: bytes, wanted: str | None) -> None:
        start = int(re.match(r"bytes=(\d+)-", wanted)[1]) if wanted else 0
        if start >= len(content) > 0:
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            self.end_headers()
            return
        self.send_response(206 if wanted else 200)
        if wanted:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        if self.site.tells_length:
            self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        self.wfile.write(content[start : self.site.breaks_after])

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve ``site`` for as long as the context lasts."""
    handler = type("Handler", (_Handler,), {"site": site})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        site.base = f"http://127.0.0.1:{server.server_port}"
        try:
            yield site
        finally:
            server.shutdown()
            thread.join()
