"""A real browser for tests of pages: headless Chromium, driven by Playwright, offline, that fails on console errors."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome")


@contextmanager
def browser_page(
    scheme: Literal["light", "dark"] = "light", width: int = 1280, height: int = 900, allow: tuple[str, ...] = ()
) -> Iterator["Page"]:
    """A page of a fresh browser; skips where there is none. At the end, what the page complained of fails the test.

    The network is cut except for files and the loopback: a page that asks for anything else fails too.

    Args:
        scheme: what the page is told of the user's preference. width, height: of the window, in CSS pixels.
        allow: parts of console errors that are expected.
    """
    pytest.importorskip("playwright", reason="no playwright: pip install playwright")
    from playwright.sync_api import sync_playwright

    if not (path := next(filter(None, map(shutil.which, NAMES)), None)):
        pytest.skip("no Chromium here: install Debian's package chromium")
    complaints: list[str] = []
    with sync_playwright() as playwright:
        # Without a sandbox: containers, where tests run as root, do not allow one.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height})
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("requestfailed", lambda request: complaints.append(f"failed: {request.url}"))
        page.route(
            lambda url: not url.startswith(("file:", "data:", "blob:", "http://127.0.0.1", "http://localhost")),
            lambda route: route.abort(),
        )
        try:
            yield page
        finally:
            browser.close()
    assert not [said for said in complaints if not any(part in said for part in allow)]


def screenshot(page: "Page", name: str, folder: Path) -> Path:
    """A picture of the whole page as `name`.png in `folder`, or in MSMREC_SCREENSHOTS where that is set."""
    path = Path(os.environ.get("MSMREC_SCREENSHOTS", folder)) / f"{name}.png"
    page.screenshot(path=path, full_page=True)
    return path
