"""Hypothesis strategies that break files: bytes of any kind, and the inner structure of each format."""

from __future__ import annotations

import copy
import io
import json
import pickle
import random
import re
import struct
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from tests.fuzz.payloads import exhausting_pickles, malicious_pickles, npy_with_pickle

EXTREMES = (
    0,
    1,
    127,
    128,
    255,
    2**15,
    2**16 - 1,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**40,
    2**62,
    2**63 - 1,
    2**64 - 1,
)
MAGIC = (
    b"\x89PNG\r\n\x1a\n", b"PK\x03\x04", b"PK\x05\x06", b"\x93NUMPY\x01\x00", b"\x80\x04",
    b"\xff\xd8\xff\xe0", b"GIF89a",
    b"%!PS-Adobe-3.0 EPSF-3.0\n", b"II*\x00", b"RIFF\x00\x00\x00\x00WEBP", b"\x00\x00\x00\x18ftypisom",
    b"#EXTM3U\n",
    b"\xef\xbb\xbf", b"\xff\xfe", b"\x00" * 8, b"\x1f\x8b\x08", b"ustar", b"{}", b"[]", b"NaN", b"\n", b"../",
)  # fmt: skip
NOISE = st.integers(0, 2**32 - 1).map(random.Random)


def any_of(*strategies: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """One of them, all as often."""
    return st.one_of(strategies)


def broken(seeds: Sequence[bytes], tokens: Sequence[bytes] = MAGIC) -> st.SearchStrategy[bytes]:
    """A valid file with one to six cuts, flips, insertions, repetitions or extreme numbers in its bytes."""

    def build(seed: bytes, noise: random.Random, n_changes: int) -> bytes:
        content = bytearray(seed)
        for _ in range(n_changes):
            noise.choice(_CHANGES)(content, noise, tokens, seeds)
        return bytes(content)

    return st.builds(build, st.sampled_from(list(seeds)), NOISE, st.integers(1, 6))


def _place(content: bytearray, noise: random.Random) -> int:
    """Anywhere, but often near the beginning or the end, where headers are."""
    n = len(content)
    return min(
        n, noise.choice((noise.randint(0, n), noise.randint(0, min(n, 64)), n - noise.randint(0, min(n, 64))))
    )


def _flip(content: bytearray, noise: random.Random, *_: Any) -> None:
    if content:
        content[_place(content, noise) % len(content)] ^= 1 << noise.randrange(8)


def _set(content: bytearray, noise: random.Random, *_: Any) -> None:
    if content:
        content[_place(content, noise) % len(content)] = noise.randrange(256)


def _truncate(content: bytearray, noise: random.Random, *_: Any) -> None:
    del content[_place(content, noise) :]


def _cut(content: bytearray, noise: random.Random, *_: Any) -> None:
    at = _place(content, noise)
    del content[at : at + noise.choice((1, 4, 64, 1024))]


def _repeat(content: bytearray, noise: random.Random, *_: Any) -> None:
    at = _place(content, noise)
    content[at:at] = content[at : at + noise.choice((1, 8, 256))] * noise.choice((1, 2, 50))


def _insert(content: bytearray, noise: random.Random, tokens: Sequence[bytes], _: Any) -> None:
    at = _place(content, noise)
    content[at:at] = noise.choice((*tokens, noise.randbytes(noise.choice((1, 4, 40)))))


def _overwrite(content: bytearray, noise: random.Random, tokens: Sequence[bytes], _: Any) -> None:
    at, token = _place(content, noise), noise.choice(tokens)
    content[at : at + len(token)] = token


def _extreme(content: bytearray, noise: random.Random, *_: Any) -> None:
    at, size = _place(content, noise), noise.choice((1, 2, 4, 8))
    value = noise.choice(EXTREMES) % 256**size
    content[at : at + size] = value.to_bytes(size, noise.choice(("little", "big")))


def _splice(content: bytearray, noise: random.Random, _: Any, seeds: Sequence[bytes]) -> None:
    other = noise.choice(seeds)
    at = noise.randint(0, len(other))
    content[_place(content, noise) :] = other[at:]


_CHANGES = (_flip, _flip, _set, _truncate, _cut, _repeat, _insert, _overwrite, _extreme, _extreme, _splice)

_ODD_VALUES: tuple[Any, ...] = (
    None, True, False, -1, 0, 1e30, -1e30, 1e300, float("nan"), float("inf"), 10**30, "", "x", "nan", {}, [], [[]],
    {"a": 1}, [None], ["x" * 100_000, *[""] * 300], [[1, 2], [3]], [0.0] * 3, [0.0] * 300, "\x1b[2J\n\u202e", "\ud800",
)  # fmt: skip


def _deep(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


def odd_json(seeds: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """A valid json value with one to four of its parts replaced by odd ones, removed or renamed."""

    def build(seed: Any, noise: random.Random, n_changes: int) -> bytes:
        value = json.loads(json.dumps(seed))
        for _ in range(n_changes):
            value = _changed_json(value, noise)
        text = json.dumps(value)
        return noise.choice(
            (text, text, text.replace("NaN", "1e999"), text + text, text.replace(",", ",,", 1))
        ).encode()

    return st.builds(build, st.sampled_from(list(seeds)), NOISE, st.integers(1, 4))


def _changed_json(value: Any, noise: random.Random) -> Any:
    if isinstance(value, dict | list) and value and noise.random() < 0.85:
        key = noise.choice(list(value)) if isinstance(value, dict) else noise.randrange(len(value))
        action = noise.random()
        if action < 0.15:
            del value[key]
        elif action < 0.25 and isinstance(value, dict):
            value[str(key).upper()] = value.pop(key)
        else:
            value[key] = _changed_json(value[key], noise)
        return value
    return copy.deepcopy(noise.choice((*_ODD_VALUES, _deep(60), _deep(900), noise.uniform(-10, 10))))


_DTYPES = (
    "<f8", ">f4", "<f2", "<f16", "|O", "|V8", "<U5", "<U900000000", "|S4", "|S0", "<M8[s]", "<c8", "f4",
    "<i8", "<u8", ">i2",
    "|b1", "?", "=f4", "<f0", "<f3", "x", "", 3, None, [("a", "<f4")], ("<f4", (2, 2)), "<f4,<f4",
)  # fmt: skip
_SHAPES = (
    (), (0,), (1,), (-1,), (-2, -3), (3, 4), (2**31,), (2**62,), (2**31, 2**31), (2**63, 2, 2), (10**30,),
    (0, 2**60, 2**60),
    (999_999, 999_999), (1,) * 33, (1.5,), ("3",), "3", None, 7, [3, 4], (True, False), (5, 7, 3), (162, 3),
    (162, 3, 400),
)  # fmt: skip


def odd_npy(seeds: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """A .npy file whose header declares another type, shape, order, version or length, or holds an expression."""

    def build(seed: bytes, noise: random.Random) -> bytes:
        array = np.load(io.BytesIO(seed))
        header: dict[str, Any] = {
            "descr": array.dtype.str,
            "fortran_order": array.flags.f_contiguous and not array.flags.c_contiguous,
            "shape": array.shape,
        }
        for _ in range(noise.randint(1, 2)):
            name, values = noise.choice(
                (
                    ("descr", _DTYPES),
                    ("shape", _SHAPES),
                    ("shape", _SHAPES),
                    ("fortran_order", (True, 2, None)),
                )
            )
            header[name] = noise.choice(values)
        if noise.random() < 0.1:
            del header[noise.choice(list(header))]
        text = noise.choice(
            (*[repr(header)] * 12, "(" * 300, "9" * 5000, "-" * 3000 + "1", "__import__('os').getcwd()", "")
        )
        version = noise.choice((*[b"\x01\x00"] * 6, b"\x02\x00", b"\x03\x00", b"\x09\x09"))
        size = 2 if version == b"\x01\x00" else 4
        length = noise.choice((*[len(text)] * 8, 0, 2**16 - 1, 2**32 - 1)) % 256**size
        data = array.tobytes() if array.dtype.kind != "O" else b""
        data = noise.choice((*[data] * 4, data[: len(data) // 2], data + b"\0" * 8, b""))
        return b"\x93NUMPY" + version + length.to_bytes(size, "little") + text.encode("latin1") + data

    return st.builds(build, st.sampled_from(list(seeds)), NOISE)


def objects_npy() -> st.SearchStrategy[bytes]:
    """A .npy file of objects with a hostile pickle in it."""
    return st.sampled_from([npy_with_pickle(content) for content in malicious_pickles()])


def odd_zip(
    seeds: Sequence[bytes], odd_member: Callable[[bytes], st.SearchStrategy[bytes]]
) -> st.SearchStrategy[bytes]:
    """A zip archive with members replaced, lost, doubled, renamed, otherwise compressed, or of false sizes."""
    members = [_members(seed) for seed in seeds]
    names = sorted({(i, name) for i, entries in enumerate(members) for name in entries})
    odd = st.sampled_from(names).flatmap(
        lambda key: st.tuples(st.just(key), odd_member(members[key[0]][key[1]]))
    )

    def build(change: tuple[tuple[int, str], bytes], noise: random.Random) -> bytes:
        (index, name), content = change
        entries = [(key, data) for key, data in members[index].items()]
        method = noise.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
        if noise.random() < 0.7:
            entries = [(key, content if key == name else data) for key, data in entries]
        action = noise.random()
        other = noise.randrange(len(entries))
        if action < 0.1:
            del entries[other]
        elif action < 0.2:
            entries.append(noise.choice(entries))
        elif action < 0.3:
            entries[other] = (noise.choice(("../x.npy", "/etc/x.npy", "x" * 60_000, "")), entries[other][1])
        archive = written_zip(
            entries, {name: noise.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, method))}
        )
        return _lied(archive, noise) if noise.random() < 0.4 else archive

    return st.builds(build, odd, NOISE)


def _members(archive: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return {info.filename: opened.read(info) for info in opened.infolist()}


def written_zip(entries: Sequence[tuple[str, bytes]], methods: Mapping[str, int]) -> bytes:
    """A zip archive with these members, names taken as they are; compressed where `methods` says how."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in entries:
            info = zipfile.ZipInfo(name)
            info.compress_type = methods.get(name, zipfile.ZIP_STORED)
            archive.NameToInfo.pop(info.filename, None)  # a second member of this name: no warning wanted
            archive.writestr(info, data)
    return buffer.getvalue()


def _lied(archive: bytes, noise: random.Random) -> bytes:
    """The archive with a wrong number in its table of contents or in a member's own header."""
    content = bytearray(archive)
    signature, fields = noise.choice(
        (
            (b"PK\x01\x02", (8, 10, 16, 20, 24, 28, 30, 42)),
            (b"PK\x03\x04", (6, 8, 14, 18, 22, 26, 28)),
            (b"PK\x05\x06", (8, 10, 12, 16)),
        )
    )
    places = [match.start() for match in re.finditer(re.escape(signature), content)]
    if places:
        at = noise.choice(places) + noise.choice(fields)
        value = noise.choice((*EXTREMES, noise.randrange(2**16))) % 2**32
        content[at : at + 4] = struct.pack("<I", value)
    return bytes(content)


def odd_pickle(values: Sequence[Any]) -> st.SearchStrategy[bytes]:
    """Pickles: hostile, exhausting, of other content, or with broken bytes."""
    valid = [pickle.dumps(value, protocol) for value in values for protocol in range(6)]
    return any_of(
        st.sampled_from(malicious_pickles()),
        st.sampled_from(exhausting_pickles()),
        broken(valid, (*MAGIC, *_OPCODES)),
        broken(exhausting_pickles(), (*MAGIC, *_OPCODES)),
        st.lists(st.sampled_from(_OPCODES), min_size=1, max_size=40).map(
            lambda codes: b"".join(codes) + b"."
        ),
    )


_OPCODES = (
    b"(", b")", b"]", b"}", b"N", b"\x88", b"K\x07", b"J\xff\xff\xff\x7f", b"\x86", b"\x87", b"t", b"l",
    b"d", b"a", b"e",
    b"s", b"u", b"b", b"R", b"\x81", b"\x92", b"o", b"0", b"2", b"1", b"h\x00", b"q\x00", b"\x94",
    b"X\x01\x00\x00\x00x",
    b"C\x02ab", b"\x8f", b"\x90", b"\x91", b"cnumpy\nndarray\n", b"cnumpy\ndtype\n",
    b"cnumpy.core.multiarray\n_reconstruct\n",
    b"c_codecs\nencode\n", b"cscipy.sparse.csc\ncsc_matrix\n", b"cchumpy.ch\nCh\n",
    b"cchumpy.reordering\nSelect\n",
    b"ccopyreg\n_reconstructor\n", b"cbuiltins\nobject\n", b"cbuiltins\nset\n", b"ccollections\nOrderedDict\n",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"cos\nsystem\n", b"Q", b"P0\n",
    b"\x82\x01", b"G" + b"\x7f" * 8,
)  # fmt: skip
