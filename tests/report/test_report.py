"""The report is one page that shows what it says and needs nothing beside it."""

from __future__ import annotations

import base64
import io
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common.checkpoint import Snapshot, network_state
from common.io.image import to_uint8
from common.report.pictures import ERROR_RANGE, heat, on_white, photo_views
from common.report.report import ReportInput, write_report
from common.run_state import Position, RunFacts, run_entry
from data.dataset import Subject
from main.config import Config, LossConfig
from tests.report.test_curves import write_log
from tests.tiny_person import tiny_model

SECTIONS = ["numbers", "losses", "photo", "geometry", "textures", "turntable", "config", "versions"]
CPU = torch.device("cpu")


class Page(HTMLParser):
    """What is in a page: tags, ids, pictures with their captions, text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.pictures: dict[str, Image.Image] = {}
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        given = dict(attributes)
        self.ids += [given["id"]] if tag == "section" and given.get("id") else []
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "action", "data")]
        if tag == "img":
            kind, data = (given["src"] or "").split(",", 1)
            assert kind == "data:image/webp;base64"
            image = Image.open(io.BytesIO(base64.b64decode(data, validate=True)))
            image.load()
            self.pictures[given["alt"] or ""] = image

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture(scope="module")
def given(small_subject: Subject, tmp_path_factory: pytest.TempPathFactory) -> ReportInput:
    folder = tmp_path_factory.mktemp("report")
    model = tiny_model()
    facts = RunFacts.of_new_run({"optim": {"lr": 0.125}, "seed": 7}, "data", [("captured", 0)], CPU)
    run = run_entry(facts, Position(3, 0, 12), 1.0, 0)
    write_log(folder / "log", range(20), 1.0)
    evaluation = {"protocols": {"official <b>": {"mean": {"psnr": 23.4567, "ssim": 0.5, "lpips": None}}}}
    (folder / "evaluation.json").write_text(json.dumps(evaluation))
    return ReportInput(
        name="tiny",
        source=folder / "snapshot_2.pth",
        snapshot=Snapshot(2, network_state(model), None, run),
        model=model,
        subject=small_subject,
        config=Config(),
        log_folder=folder / "log",
        results=[folder, folder / "none"],
        device=CPU,
    )


@pytest.fixture(scope="module")
def text(given: ReportInput, tmp_path_factory: pytest.TempPathFactory) -> str:
    path: Path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(path, given)
    return path.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_nothing_is_loaded_from_elsewhere(text, page):
    assert not re.search(r"https?:|//[a-z]|url\(|@import", re.sub(r"base64,[^\"]*", "", text))
    assert not page.tags & {"script", "link", "iframe", "object", "embed"}
    assert all(link.startswith(("#", "data:image/webp")) for link in page.links)
    assert "default-src 'none'" in text


def test_every_section_is_there_in_its_order_and_linked(page):
    assert page.ids == SECTIONS
    assert [link for link in page.links if link.startswith("#")] == [f"#{name}" for name in SECTIONS]


def test_every_picture_decodes_and_all_kinds_are_there(page):
    expected = [
        "photo",
        "photo in its mask",
        "base,",
        "refined,",
        "error of base",
        "error of refined",
        "base, left",
    ]
    expected += [
        f"{kind}: {of}" for kind in ("normals", "depth", "parts") for of in ("estimated", "base", "refined")
    ]
    expected += ["boundary map: base", "boundary map: refined"]
    expected += [
        f"{kind}: {of}" for kind in ("colour", "auxiliary", "parts") for of in ("from the data", "trained")
    ]
    captions = list(page.pictures)
    for wanted in expected:
        kind, _, of = wanted.partition(": ")
        assert any(caption.startswith(kind) and of in caption for caption in captions), wanted


def test_photo_and_renders_are_the_photos_and_the_avatars(given, page):
    frame = given.subject.load("captured", 0)
    pose = given.model.smplx_param_dict.pose("captured", 0)
    base, refined = photo_views(given.model.persona, pose, frame, LossConfig())
    shown = {"photo": frame.image, f"base, {base.psnr:.2f} dB": base.image}
    shown[f"refined, {refined.psnr:.2f} dB"] = refined.image
    for caption, image in shown.items():
        found = np.asarray(page.pictures[caption].convert("RGB"))
        np.testing.assert_array_equal(found, to_uint8(image))


def test_error_and_psnr_are_those_of_avatar_and_photo_on_white(given):
    frame = given.subject.load("captured", 0)
    pose = given.model.smplx_param_dict.pose("captured", 0)
    for view in photo_views(given.model.persona, pose, frame, LossConfig()):
        photo = on_white(frame.image, frame.mask)
        torch.testing.assert_close(view.error[0], (view.image - photo).abs().mean(0))
        mean_square = float(((view.image.clamp(0, 1) - photo) ** 2).mean())
        assert view.psnr == pytest.approx(-10 * np.log10(mean_square), abs=1e-3)


def test_turntable_moves(page):
    (turning,) = [image for caption, image in page.pictures.items() if caption.startswith("base, left")]
    assert turning.n_frames == 24
    frames = []
    for i in (0, 6):
        turning.seek(i)
        frames.append(np.asarray(turning.convert("RGB")).astype(int))
    assert np.abs(frames[0] - frames[1]).max() > 50


def test_numbers_options_and_versions_are_told(given, page):
    for said in ("23.4567", "0.5000", "not available", "official <b>", "optim.lr", "0.125", "epoch 2"):
        assert said in page.text, said
    assert str(len(given.model.persona.mean_offset)) in page.text
    assert torch.__version__ in page.text


def test_heat_goes_from_black_to_yellow_and_stops_there():
    colors = heat(torch.tensor([[[0.0, ERROR_RANGE / 2, ERROR_RANGE, 9.0]]]), ERROR_RANGE)[0].astype(int)
    assert colors[0].max() <= 5 and (np.diff(colors.sum(1)) >= 0).all()
    assert (colors[2] == colors[3]).all() and colors[3, :2].min() > 240
