"""The viewer in a real browser: what its page shows is what the project's rasterizer draws."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import plyfile
import pytest
import torch
from PIL import Image

from tests.cli.browser import browser_page, screenshot, wait_until
from tests.cli.commands import ROOT, TRAIN, Workspace, succeed

if TYPE_CHECKING:
    from playwright.sync_api import Locator, Page

WIDTH, HEIGHT = 1280, 840  # all that is used of the panel without scrolling
FREE = np.s_[:, 320:940]  # beside notices on the left and controls on the right


@pytest.fixture(scope="module")
def untrained(with_field: Workspace) -> Workspace:
    """An avatar as training begins with it."""
    space = replace(with_field, output=with_field.root / "viewer")
    succeed("main/train.py", *space.options(), *TRAIN, "--initialise_only")
    return space


def heed_interrupts() -> None:
    """Undo what a shell does to the commands that it runs in the background: they ignore Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def url(untrained: Workspace) -> Iterator[str]:
    """Address of a running viewer, which must end well when it is interrupted."""
    motion = ("--motion_path", str(untrained.subject / "motion"), "--port", "0")
    viewer = subprocess.Popen(
        [sys.executable, "main/viewer.py", *untrained.options(), *motion],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONFAULTHANDLER": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=heed_interrupts,
    )
    assert viewer.stdout is not None
    said = viewer.stdout.readline()
    if "http://127.0.0.1:" not in said:
        viewer.kill()
        pytest.fail(f"the viewer said {said!r} and: {viewer.communicate()[1][-3000:]}")
    yield next(word for word in said.split() if word.startswith("http"))
    viewer.send_signal(signal.SIGINT)
    try:
        rest = viewer.communicate(timeout=60)[1]
    except subprocess.TimeoutExpired:
        viewer.send_signal(signal.SIGABRT)  # it says where its threads are
        pytest.fail(f"the viewer does not end: {viewer.communicate()[1][-6000:]}")
    assert viewer.returncode == 130 and "Traceback" not in rest, rest[-3000:]


@pytest.fixture(scope="module")
def page(url: str) -> Iterator[Page]:
    """The viewer's page, with the avatar on it."""
    with browser_page(url, WIDTH, HEIGHT) as page:
        wait_until("the avatar appears", lambda: bool(is_drawn(screenshot(page)[FREE]).mean() > 0.03))
        yield page


def is_drawn(image: np.ndarray) -> np.ndarray:
    """Where something stands before the white background."""
    return image.min(2) < 200


def snapshot(page: Page) -> np.ndarray:
    """The picture behind the page's button, by the project's rasterizer, in the size of the page.

    Its own size is that of the page's canvas, whose resolution viser lowers where drawing is slow.
    """
    picture = Image.open(download(page, "Snapshot (.png)")).convert("RGB")
    assert picture.width / picture.height == pytest.approx(WIDTH / HEIGHT, rel=0.01)
    return np.asarray(picture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR)).astype(int)


def download(page: Page, button: str) -> Path:
    """The file that a button saves."""
    with page.expect_download() as started:
        page.get_by_role("button", name=button).click()
    return Path(started.value.path())


def control(page: Page, label: str) -> Locator:
    """The control beside a label."""
    name = page.locator(f"label:text-is('{label}')").first.get_attribute("for")
    return page.locator(f"[id='{name}']")


def choose(page: Page, label: str, option: str) -> None:
    """Take an option of a list."""
    control(page, label).click()
    page.get_by_role("option", name=option, exact=True).click()


def drag(page: Page, label: str, fraction: float) -> None:
    """Drag a slider's knob to a fraction of its way."""
    slider = control(page, label)
    way, knob = slider.bounding_box(), slider.get_by_role("slider").bounding_box()
    assert way is not None and knob is not None
    page.mouse.move(knob["x"] + knob["width"] / 2, knob["y"] + knob["height"] / 2)
    page.mouse.down()
    page.mouse.move(way["x"] + way["width"] * fraction, way["y"] + way["height"] / 2, steps=5)
    page.mouse.up()


def agreement(shown: np.ndarray, drawn: np.ndarray) -> float:
    """Overlap of the two silhouettes: intersection over union."""
    a, b = is_drawn(shown[FREE]), is_drawn(drawn[FREE])
    return float((a & b).sum() / max((a | b).sum(), 1))


def wait_for_picture(page: Page, drawn: np.ndarray) -> np.ndarray:
    """The page's picture, once it is like the rasterizer's."""
    wait_until("the page shows the rasterizer's picture", lambda: agreement(screenshot(page), drawn) > 0.9)
    return screenshot(page)


def test_the_page_shows_what_the_rasterizer_draws(page):
    drawn = snapshot(page)
    shown = wait_for_picture(page, drawn)
    both = is_drawn(shown[FREE]) & is_drawn(drawn[FREE])
    assert both.mean() > 0.03
    assert np.abs(shown[FREE] - drawn[FREE])[both].mean() < 25  # the page's splats are softer
    assert shown[FREE][both].std() > 20  # and not a silhouette in one colour


def test_dragging_a_joints_slider_changes_the_picture_and_a_reset_takes_it_back(page):
    choose(page, "Pose", "neutral")
    before = wait_for_picture(page, snapshot(page))
    choose(page, "Joint", "left_shoulder")
    drag(page, "Turn z (°)", 0.3)
    wait_until("the picture changes", lambda: agreement(screenshot(page), before) < 0.9)
    turned = snapshot(page)
    assert agreement(turned, before) < 0.9
    wait_for_picture(page, turned)
    page.get_by_role("button", name="Reset body").click()
    wait_until("the picture is back", lambda: agreement(screenshot(page), before) > 0.98)
    choose(page, "Pose", "motion")


def test_the_motion_plays(page):
    def frame() -> int:
        return int(control(page, "Frame").get_by_role("slider").get_attribute("aria-valuenow") or -1)

    assert frame() == 0
    before = wait_for_picture(page, snapshot(page))
    page.get_by_role("button", name="Play").click()
    wait_until("the timeline moves", lambda: frame() > 0)
    for _ in range(5):  # no moment without the avatar while its splats are replaced
        assert is_drawn(screenshot(page)[FREE]).mean() > 0.5 * is_drawn(before[FREE]).mean()
    page.get_by_role("button", name="Pause").click()
    drag(page, "Frame", 0.5)
    wait_until("the knob stands in the middle", lambda: frame() > 0)
    drawn = snapshot(page)
    assert agreement(drawn, before) < 0.95
    wait_for_picture(page, drawn)
    drag(page, "Frame", 0.0)


def test_dragging_turns_the_camera_and_a_reset_takes_it_back(page):
    before = wait_for_picture(page, snapshot(page))
    page.mouse.move(600, 400)
    page.mouse.down()
    page.mouse.move(400, 350, steps=5)
    page.mouse.up()
    wait_until("the picture turns", lambda: agreement(screenshot(page), before) < 0.8)
    wait_for_picture(page, snapshot(page))
    page.get_by_role("button", name="Reset camera").click()
    wait_until("the picture is back", lambda: agreement(screenshot(page), before) > 0.95)


def test_other_views_change_the_colours_and_not_the_shape(page):
    before = wait_for_picture(page, snapshot(page))
    for look in ("depth", "normal", "parts"):
        choose(page, "Show", look)
        drawn = snapshot(page)
        both = is_drawn(before[FREE]) & is_drawn(drawn[FREE])
        assert np.abs(before[FREE] - drawn[FREE])[both].mean() > 10
        wait_until(
            f"the page shows {look}",
            lambda drawn=drawn, both=both: np.abs(screenshot(page)[FREE] - drawn[FREE])[both].mean() < 25,
        )
    choose(page, "Show", "colour")


def test_the_splats_of_the_button_are_the_avatars(page, untrained):
    splats = plyfile.PlyData.read(str(download(page, "Splats (.ply)")))["vertex"]
    [snapshot_file] = untrained.snapshots.glob("snapshot_*.pth")
    state = torch.load(snapshot_file, weights_only=True)["network"]
    rgb = np.stack([splats[f"f_dc_{i}"] for i in range(3)], 1) * 0.28209479177387814 + 0.5
    np.testing.assert_allclose(rgb, torch.sigmoid(state["persona.rgb"]).numpy(), atol=1e-5)
    height = np.ptp(splats["y"])
    assert 1.4 < height < 2.2  # metres, y up
