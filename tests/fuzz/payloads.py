"""Hostile pickles: each would leave a file behind if anything in it ran, or take time or memory without end."""

from __future__ import annotations

import codecs
import io
import os
import pickle
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

MARKER = "code_was_run"  # in the current folder


class Call:
    """Pickles into a call of a function."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> Any:
        return self.call


CALLS: dict[str, Callable[[], Any]] = {
    "os.system": lambda: Call(os.system, f"touch {MARKER}"),
    "eval": lambda: Call(eval, f"open({MARKER!r}, 'w').close()"),
    "exec": lambda: Call(exec, f"open({MARKER!r}, 'w').close()"),
    "open": lambda: Call(open, MARKER, "w"),
    "subprocess": lambda: Call(subprocess.call, ["touch", MARKER]),
    "Path.touch": lambda: Call(Path.touch, Path(MARKER)),
    "numpy.memmap": lambda: Call(np.memmap, MARKER, "u1", "w+", 0, (4,)),
    "os.mkdir": lambda: Call(os.mkdir, MARKER),
}


def malicious_pickles(protocols: tuple[int, ...] = (0, 2, 4)) -> list[bytes]:
    """Pickles that write MARKER if they are loaded by Python's own unpickler, alone and inside of a dict."""
    values = [make() for make in CALLS.values()]
    return [
        pickle.dumps(content, protocol)
        for value in values
        for content in (value, {"epoch": 0, "network": value, "v_template": value})
        for protocol in protocols
    ]


def _nested_tuples(depth: int) -> bytes:
    """(((), ()), ((), ())), ...: small to write, 2^depth elements to look at."""
    return b")" + b"\x94h\x00\x86" * 1 + b"".join(b"\x94h" + bytes([i + 1]) + b"\x86" for i in range(depth))


def _hashed(value: bytes) -> bytes:
    return b"\x80\x04}" + value + b"K\x01s."


def laughs(depth: int, width: int = 10) -> list[Any]:
    """Lists of lists of lists ... that all hold the same one `width` times: small here and in a pickle."""
    value: list[Any] = ["ha"]
    for _ in range(depth):
        value = [value] * width
    return value


def exhausting_pickles() -> list[bytes]:
    """Pickles of a few kilobytes that a careless reader needs minutes or gigabytes for."""
    endless = laughs(25)
    uses = (
        endless,
        Call(codecs.encode, endless, "latin1"),
        Call(np.dtype, endless),
        Call(np.ndarray, endless),
    )
    return [
        _hashed(_nested_tuples(60)),
        *(pickle.dumps(dict.fromkeys(("weights", "left_hand", "x"), use), 2) for use in uses),
        b"\x80\x04\x8e" + struct.pack("<Q", 2**40) + b"x.",  # bytes of a terabyte
        b"\x80\x05\x96" + struct.pack("<Q", 2**33) + b"x.",  # a bytearray of 8 GiB
        b"\x80\x04\x95" + struct.pack("<Q", 2**40) + b"}.",  # a frame of a terabyte
        b"\x80\x04}r" + struct.pack("<I", 2**31 - 1) + b".",  # memo place two thousand million
        b"\x80\x04\x8b" + struct.pack("<i", 2**31 - 1) + b"\x01.",  # an integer of 2 GiB
        b"I" + b"9" * 20_000 + b"\n.",
        b"(" * 2000 + b".",
        b"\x80\x02" + b"]" * 500 + b"a" * 499 + b".",
        pickle.dumps({"x": Call(bytearray, 2**31 - 1)}, 2),
        pickle.dumps({"x": np.zeros(1)}, 2).replace(b"K\x01\x85", b"J\xff\xff\xff\x7f\x85"),
    ]


def npy_with_pickle(pickled: bytes) -> bytes:
    """A .npy file of an object array: numpy.load(allow_pickle=True) would run it."""
    buffer = io.BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": (1,)}
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue() + pickled
