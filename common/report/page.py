"""Building blocks of a self-contained HTML page: sections, tables, pictures as data URIs."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from PIL import Image

_QUALITY = 90  # of animations; single pictures are stored without loss
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5f6670; --paper: #fbfbfa; --card: #ffffff;
  --rule: #d9dce0; --accent: #2a6fb0; --band: #2a6fb033; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e7e9; --soft: #9aa2ad; --paper: #16181b;
  --card: #1f2226; --rule: #363b42; --accent: #6db1ee; --band: #6db1ee33; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 1.5rem; max-width: 1240px; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .2rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem;
  border-bottom: 1px solid var(--rule); padding-bottom: .3rem; }
p { max-width: 46rem; margin: .3rem 0 .8rem; } .soft, figcaption { color: var(--soft); }
nav a { color: var(--accent); margin-right: 1rem; text-decoration: none; }
.grid-of { display: grid; gap: .9rem; margin-bottom: .9rem; align-items: start; } figure { margin: 0; min-width: 0; }
figure img { display: block; width: 100%; height: auto; border: 1px solid var(--rule); border-radius: 4px;
  background: #fff; }
figcaption { font-size: .85rem; margin-top: .25rem; overflow-wrap: anywhere; }
.card { background: var(--card); border: 1px solid var(--rule); border-radius: 6px; padding: .5rem .6rem; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .2rem 1.2rem .2rem 0; border-bottom: 1px solid var(--rule);
  vertical-align: top; overflow-wrap: anywhere; }
.numbers :is(th, td):not(:first-child) { text-align: right; white-space: nowrap; }
section > .card { margin-top: .8rem; }
svg { display: block; width: 100%; } svg text { font: 10px system-ui, sans-serif; fill: var(--soft); }
svg .grid { stroke: var(--rule); stroke-width: 1; } svg .band { fill: var(--band); }
svg .line { fill: none; stroke: var(--accent); stroke-width: 1.5; }
details summary { cursor: pointer; color: var(--accent); } code { font-size: .85rem; }
"""


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading."""

    id: str
    title: str
    body: str  # HTML


def page(title: str, lead: str, sections: Sequence[Section]) -> str:
    """The whole page; nothing in it may be loaded from elsewhere, which its content policy enforces."""
    links = "".join(f'<a href="#{s.id}">{escape(s.title)}</a>' for s in sections)
    parts = "".join(f'<section id="{s.id}"><h2>{escape(s.title)}</h2>{s.body}</section>' for s in sections)
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f'<body><h1>{escape(title)}</h1><p class="soft">{escape(lead)}</p><nav>{links}</nav>{parts}</body></html>\n'
    )


def figure(pixels: np.ndarray | Sequence[np.ndarray], caption: str, ms_per_frame: int = 100) -> str:
    """A picture (H, W, 3) uint8, or an animation of several, with its caption."""
    frames = [pixels] if isinstance(pixels, np.ndarray) else list(pixels)
    first, *others = map(Image.fromarray, frames)
    file = io.BytesIO()
    if others:
        more = {"save_all": True, "append_images": others, "duration": ms_per_frame, "loop": 0}
        first.save(file, "WEBP", quality=_QUALITY, **more)
    else:
        first.save(file, "WEBP", lossless=True)
    data = base64.b64encode(file.getvalue()).decode("ascii")
    text = escape(caption)
    return (
        f'<figure><img src="data:image/webp;base64,{data}" alt="{text}" width="{first.width}" '
        f'height="{first.height}"><figcaption>{text}</figcaption></figure>'
    )


def grid(items: Iterable[str], min_width_px: int) -> str:
    """Items side by side, as many as fit."""
    style = f"grid-template-columns: repeat(auto-fill, minmax(min({min_width_px}px, 100%), 1fr))"
    return f'<div class="grid-of" style="{style}">{"".join(items)}</div>'


def row(items: Sequence[str]) -> str:
    """Items in one row, equally wide."""
    style = f"grid-template-columns: repeat({len(items)}, 1fr)"
    return f'<div class="grid-of" style="{style}">{"".join(items)}</div>'


def card(title: str, content: str) -> str:
    """Content in a frame with a small title."""
    return f'<div class="card"><strong>{escape(title)}</strong>{content}</div>'


def table(rows: Iterable[Sequence[str]], header: Sequence[str] = (), are_numbers: bool = False) -> str:
    """A table; `are_numbers`: all cells but the first of a row stand to the right."""
    head = "<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in header) + "</tr>" if header else ""
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>" for cells in rows
    )
    kind = ' class="numbers"' if are_numbers else ""
    return f'<div class="scroll"><table{kind}>{head}{lines}</table></div>'


def named_values(values: Mapping[str, object]) -> str:
    """A table of names and values."""
    return table([name, str(value)] for name, value in values.items())


def paragraph(text: str) -> str:
    """Plain text as a paragraph."""
    return f"<p>{escape(text)}</p>"


def folded(title: str, content: str) -> str:
    """Content that is shown on a click."""
    return f"<details><summary>{escape(title)}</summary>{content}</details>"
