"""A page in headless Chromium, served from this machine to itself, that posts back what it found."""

from __future__ import annotations

import contextlib
import functools
import json
import queue
import shutil
import subprocess
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from conftest import not_run

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
SECONDS = 120


def chromium() -> str:
    """Return the program; skip the test where there is none, and fail it on CI."""
    return next(filter(None, map(shutil.which, NAMES)), None) or not_run("a browser (chromium not found)")


class _Handler(SimpleHTTPRequestHandler):
    """GET of files below the folders served, PUT of new ones, and POST of what a page found."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript",
        ".mjs": "text/javascript",
        ".wasm": "application/wasm",
    }

    def __init__(self, *arguments: Any, folders: Mapping[str, Path], found: queue.Queue[Any]) -> None:
        self.folders, self.found = folders, found
        super().__init__(*arguments)

    def translate_path(self, path: str) -> str:
        path = unquote(urlsplit(path).path)
        prefix = max((name for name in self.folders if path.startswith(name)), key=len, default=None)
        return str(self.folders[prefix] / path.removeprefix(prefix)) if prefix else "/nothing"

    def do_PUT(self) -> None:
        Path(self.translate_path(self.path)).write_bytes(self._body())
        self._answer()

    def do_POST(self) -> None:
        self.found.put(json.loads(self._body()))
        self._answer()

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers["Content-Length"]))

    def _answer(self) -> None:
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-store")
        super().end_headers()

    def log_message(self, *arguments: object) -> None:
        """Say nothing of each request."""


@contextlib.contextmanager
def _served(folders: Mapping[str, Path], found: queue.Queue[Any]) -> Iterator[str]:
    handler = functools.partial(_Handler, folders=folders, found=found)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def posted(page: str, folders: Mapping[str, Path], profile: Path) -> Any:
    """Return what a page posts to /said.

    Args:
        page: its path.
        folders: by the path they are served at.
        profile: an empty folder for the browser's own files.
    """
    program = chromium()
    found: queue.Queue[Any] = queue.Queue()
    with _served(folders, found) as address, open(profile / "log", "wb") as log:
        words = [program, *FLAGS, f"--user-data-dir={profile}", address + page]
        browser = subprocess.Popen(words, stdout=log, stderr=log)
        try:
            return found.get(timeout=SECONDS)
        except queue.Empty:
            told = (profile / "log").read_text(errors="replace")[-2000:]
            raise AssertionError(f"{page} posted nothing in {SECONDS} s: {told}") from None
        finally:
            browser.terminate()
            browser.wait()
