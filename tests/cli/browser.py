"""A real browser without a window or a GPU, for tests of pages."""

from __future__ import annotations

import io
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
SOFTWARE_WEBGL = ("--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader")


@contextmanager
def browser_page(url: str, width: int, height: int) -> Iterator[Page]:
    """The page at `url` in the Chromium of this machine; skips the test where there is none."""
    program = next(filter(None, map(shutil.which, NAMES)), None)
    if program is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is installed (Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=list(SOFTWARE_WEBGL))
        page = browser.new_page(viewport={"width": width, "height": height})
        page.set_default_timeout(60_000)
        page.goto(url)
        yield page
        browser.close()


def screenshot(page: Page) -> np.ndarray:
    """What the page shows now (H, W, 3), 0 to 255."""
    return pixels(page.screenshot())


def pixels(png: bytes) -> np.ndarray:
    """An image file's pixels (H, W, 3), 0 to 255."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def wait_until(what: str, condition: Callable[[], bool], timeout_s: float = 60) -> None:
    """Ask again and again until the condition holds."""
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, f"not within {timeout_s} s: {what}"
        time.sleep(0.3)
