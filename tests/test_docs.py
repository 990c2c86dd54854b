"""The documents point at what exists: files, headings, commands, sections of the specification."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
CODE = [
    path for folder in ("common", "data", "main", "tools", "tests") for path in (ROOT / folder).rglob("*.py")
]
pages = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def anchors(page: Path) -> set[str]:
    """The addresses of a page's headings, as code hosts make them."""
    titles = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pages
def test_links_lead_to_files_and_headings(page):
    links = re.findall(r"\]\((?!https?://)([^)\s]+)\)", page.read_text(encoding="utf-8"))
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pages
def test_named_scripts_exist(page):
    scripts = set(
        re.findall(r"\b((?:main|tools|tests)/[\w/]+\.(?:py|sh))\b", page.read_text(encoding="utf-8"))
    )
    assert [script for script in scripts if not (ROOT / script).is_file()] == []


def test_cited_sections_of_the_specification_exist():
    sections = set(
        re.findall(r"^## (\d+)\. ", (ROOT / "docs/specification.md").read_text("utf-8"), re.MULTILINE)
    )
    cited = {
        number
        for path in CODE
        for citation in re.findall(r"\bSPEC ((?:\d+(?:, | and )?)+)", path.read_text(encoding="utf-8"))
        for number in re.findall(r"\d+", citation)
    }
    assert len(cited) > 10
    assert cited <= sections
