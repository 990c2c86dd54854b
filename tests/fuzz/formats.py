"""Hypothesis strategies that break the inner structure of images, meshes, weights, videos and lists."""

from __future__ import annotations

import io
import json
import random
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any

from hypothesis import strategies as st
from PIL import Image

from tests.fuzz.mutations import EXTREMES, NOISE

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIDES = (0, 1, 14, 8192, 65_535, 2**31 - 1, 2**31, 2**32 - 1)


def odd_png(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """PNG files with right checksums but odd chunks, and images of other formats."""

    def build(seed: bytes, noise: random.Random) -> bytes:
        chunks = _chunks(seed)
        for _ in range(noise.randint(1, 3)):
            noise.choice((_other_header, _other_header, _extra_chunk, _lose, _double, _other_data))(
                chunks, noise
            )
        return _PNG_SIGNATURE + b"".join(_chunk(kind, data) for kind, data in chunks)

    return st.one_of(
        st.builds(build, st.sampled_from(list(seeds)), NOISE),
        st.builds(build, st.sampled_from(list(seeds)), NOISE),
        st.sampled_from(_other_images()),
    )


def _chunks(image: bytes) -> list[tuple[bytes, bytes]]:
    chunks, at = [], len(_PNG_SIGNATURE)
    while at < len(image):
        n = int.from_bytes(image[at : at + 4], "big")
        chunks.append((image[at + 4 : at + 8], image[at + 8 : at + 8 + n]))
        at += n + 12
    return chunks


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@cache
def _bomb() -> bytes:
    """16 KiB that inflate to 16 MiB."""
    return zlib.compress(b"\0" * 2**24, 9)


Chunks = list[tuple[bytes, bytes]]


def _other_header(chunks: Chunks, noise: random.Random) -> None:
    at = next((i for i, (kind, _) in enumerate(chunks) if kind == b"IHDR"), None)
    if at is None or len(chunks[at][1]) != 13:
        return
    width, height, depth, colour, packing, filters, interlace = struct.unpack(">IIBBBBB", chunks[at][1])
    changed = noise.choice(("size", "size", "width", "depth", "colour", "interlace", "rest"))
    if changed == "size":
        width, height = noise.choice(_SIDES), noise.choice(_SIDES)
    elif changed == "width":
        width = min(max(width + noise.choice((-1, 1, 100)), 0), 2**32 - 1)
    elif changed == "depth":
        depth = noise.choice((0, 1, 2, 4, 16, 255))
    elif changed == "colour":
        colour = noise.choice((0, 2, 3, 4, 6, 7))
    elif changed == "interlace":
        interlace = noise.choice((1, 2, 255))
    else:
        packing, filters = noise.randrange(3), noise.randrange(3)
    data = struct.pack(">IIBBBBB", width, height, depth, colour, packing, filters, interlace)
    chunks[at] = (b"IHDR", data)


def _extra_chunk(chunks: Chunks, noise: random.Random) -> None:
    kind, data = noise.choice(
        (
            (b"zTXt", b"name\0\0" + _bomb()),
            (b"iCCP", b"name\0\0" + _bomb()),
            (b"iTXt", b"name\0\1\0\0\0" + _bomb()),
            (b"tEXt", b"name\0" + b"x" * 100_000),
            (b"PLTE", b"\1\2\3" * noise.choice((1, 255, 300))),
            (b"tRNS", b"\0" * noise.choice((0, 1, 2, 7, 300))),
            (b"acTL", struct.pack(">II", noise.choice(EXTREMES) % 2**32, 0)),
            (b"fcTL", struct.pack(">IIIIIHHBB", 0, 2**31 - 1, 2**31 - 1, 0, 0, 1, 1, 0, 0)),
            (b"fdAT", noise.randbytes(8)),
            (b"gAMA", b""),
            (b"pHYs", b"\0"),
            (b"eXIf", b"MM\0*\0\0\0\x08" + noise.randbytes(30)),
            (b"XxXx", b""),
            (b"IEND", b""),
        )
    )
    chunks.insert(noise.randint(0, len(chunks)), (kind, data))


def _lose(chunks: Chunks, noise: random.Random) -> None:
    if chunks:
        del chunks[noise.randrange(len(chunks))]


def _double(chunks: Chunks, noise: random.Random) -> None:
    if chunks:
        chunks.insert(noise.randint(0, len(chunks)), noise.choice(chunks))


def _other_data(chunks: Chunks, noise: random.Random) -> None:
    for i, (kind, data) in enumerate(chunks):
        if kind == b"IDAT":
            chunks[i] = (
                kind,
                noise.choice((_bomb(), data[: len(data) // 2], data * 2, noise.randbytes(50), b"")),
            )


def _other_images() -> list[bytes]:
    """Other formats under the name of a PNG, among them one that Pillow hands to Ghostscript."""
    images = []
    for name in ("JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "ICO", "TGA", "PCX", "SGI", "DDS", "PDF"):
        buffer = io.BytesIO()
        Image.new("RGB", (14, 20), (1, 2, 3)).save(buffer, name)
        images.append(buffer.getvalue())
    jpeg = bytearray(images[0])
    at = jpeg.find(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 14 20\n%%EndComments\n(code_was_run) (w) file closefile\n"
    return [*images, bytes(jpeg), eps, b"<svg/>", b"P6 99999 99999 255\n", b"BM" + b"\xff" * 60]


def odd_lines(seeds: Sequence[str], words: Sequence[str]) -> st.SearchStrategy[bytes]:
    """Text with lines and words replaced, lost, doubled or joined."""

    def build(seed: str, noise: random.Random, n_changes: int) -> bytes:
        lines = seed.split("\n")
        for _ in range(n_changes):
            at = noise.randrange(len(lines))
            parts = lines[at].split(" ")
            parts[noise.randrange(len(parts))] = noise.choice(words)
            lines[at] = " ".join(parts)
            if noise.random() < 0.2:
                lines.insert(at, noise.choice(lines))
            if noise.random() < 0.2 and len(lines) > 1:
                del lines[noise.randrange(len(lines))]
        ending = noise.choice(("\n", "\n", "\r\n", "\x00", " ", "\u2028"))
        return ending.join(lines).encode(noise.choice(("utf-8", "utf-8", "utf-16")), "surrogatepass")

    return st.builds(build, st.sampled_from(list(seeds)), NOISE, st.integers(1, 6))


ODD_WORDS = (
    "", "-1", "0", "1.5", "1e400", "nan", "inf", "-inf", "abc", "999999999999999999999999", "9" * 5000,
    "0x10", "1_0", "\u0663",
    "..", "../../secret", "/etc/passwd", "0/1/2", "1//2", "//", "0/0", "-1/-1", "\x1b[31m", "a" * 5000,
    "vt", "f", "007", "2147483648",
)  # fmt: skip


def odd_safetensors(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """safetensors files whose header declares other types, shapes, places, lengths or metadata."""

    def build(seed: bytes, noise: random.Random) -> bytes:
        size = int.from_bytes(seed[:8], "little")
        header: dict[str, Any] = json.loads(seed[8 : 8 + size])
        for _ in range(noise.randint(1, 3)):
            name = noise.choice(list(header))
            entry = header[name] if isinstance(header[name], dict) else {}
            action = noise.random()
            if name == "__metadata__":
                header[name] = noise.choice(
                    ({}, None, [], {"epoch": 3}, {**entry, "epoch": "9" * 5000}, {**entry, "epoch": "-1"},
                    {**entry, "format": "x\x1b[2J"},
                     {**entry, "epoch": "\u0663"}, {"x": "y" * 10_000})
                )  # fmt: skip
            elif action < 0.15:
                del header[name]
            elif action < 0.25:
                header[noise.choice(("x", "\x1b[2J", "../x", "a" * 3000, "__metadata__"))] = entry
            else:
                key = noise.choice(("dtype", "shape", "data_offsets"))
                header[name] = {**entry, key: noise.choice(_SAFE_VALUES[key])}
            if not header:
                break
        text = noise.choice((json.dumps(header), json.dumps(header), "[" * 5000, "{" * 5000)).encode()
        length = noise.choice((*[len(text)] * 8, 0, 2**31, 2**63, 2**64 - 1, len(text) + 8))
        data = seed[8 + size :]
        return (
            struct.pack("<Q", length) + text + noise.choice((data, data, data, data[:-4], data + b"\0" * 8))
        )

    return st.builds(build, st.sampled_from(list(seeds)), NOISE)


_SAFE_VALUES: dict[str, tuple[Any, ...]] = {
    "dtype": ("F64", "F16", "BF16", "I64", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "U16", "U64", "C64", "F4",
    "F6_E2M3", "X", 3, None),
    "shape": ([], [0], [-1], [2**40], [2**62, 2**62], [1.5], "3", None, [0, 2**62], [2**32, 2**32, 0],
    [1] * 100),
    "data_offsets": ([0, 0], [0, 4], [4, 0], [0, 2**62], [-4, 0], [2**64, 2**65], [0], None, "0", [1, 5]),
}  # fmt: skip


def odd_mp4(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """mp4 files with odd numbers in their boxes, lost or doubled boxes, and playlists that name other files."""

    def build(seed: bytes, noise: random.Random) -> bytes:
        content = bytearray(seed)
        for _ in range(noise.randint(1, 4)):
            kind = noise.choice(_BOXES)
            at = content.find(kind)
            if at < 4:
                continue
            action = noise.random()
            if action < 0.3:
                content[at - 4 : at] = struct.pack(">I", noise.choice((0, 1, 7, 8, 2**31, 2**32 - 1)))
            elif action < 0.8:
                place = at + 4 + 4 * noise.randrange(24)
                content[place : place + 4] = struct.pack(">I", noise.choice(EXTREMES) % 2**32)
            elif action < 0.9:
                content[at : at + 4] = noise.choice(_BOXES)
            else:
                n = int.from_bytes(content[at - 4 : at], "big")
                content[at - 4 : at - 4] = content[at - 4 : at - 4 + min(n, 10_000)]
        return bytes(content)

    return st.one_of(
        st.builds(build, st.sampled_from(list(seeds)), NOISE),
        st.builds(build, st.sampled_from(list(seeds)), NOISE),
        st.sampled_from(_PLAYLISTS),
    )


_BOXES = (
    b"ftyp", b"moov", b"mvhd", b"trak", b"tkhd", b"edts", b"elst", b"mdia", b"mdhd", b"hdlr", b"minf",
    b"vmhd", b"dinf", b"dref", b"stbl",
    b"stsd", b"avc1", b"avcC", b"colr", b"stts", b"stss", b"ctts", b"stsc", b"stsz", b"stco", b"mdat",
    b"udta", b"meta",
)  # fmt: skip
_PLAYLISTS = [
    b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n/etc/passwd\n#EXT-X-ENDLIST\n",
    b"ffconcat version 1.0\nfile /etc/passwd\n",
    b"<?xml version='1.0'?><MPD><BaseURL>http://127.0.0.1:9/</BaseURL></MPD>",
    b"v=0\nm=video 9 RTP/AVP 0\nc=IN IP4 127.0.0.1\n",
]
