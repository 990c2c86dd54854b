"""Hypothesis strategies that break files of torch.save, and such files with hostile content."""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Sequence
from typing import Any

import torch
from hypothesis import strategies as st

from tests.fuzz.mutations import MAGIC, broken, odd_zip
from tests.fuzz.payloads import CALLS, Call, exhausting_pickles, laughs, malicious_pickles


def saved(content: Any, is_zip: bool = True) -> bytes:
    """What torch.save writes."""
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


def odd_torch_file(
    seeds: Sequence[bytes], legacy_seeds: Sequence[bytes], contents: Sequence[Any]
) -> st.SearchStrategy[bytes]:
    """Broken bytes, broken archives, broken pickles in sound archives, and hostile content."""
    return st.one_of(
        broken([*seeds, *legacy_seeds]),
        broken(legacy_seeds),
        odd_zip(seeds, _odd_member),
        odd_zip(seeds, _odd_member),
        st.sampled_from([file for content in contents for file in _hostile(content)]),
    )


def _odd_member(member: bytes) -> st.SearchStrategy[bytes]:
    hostile = st.sampled_from([*malicious_pickles((2,)), *exhausting_pickles()])
    return st.one_of(broken([member]), broken([member], _TORCH_TOKENS), hostile)


_TORCH_TOKENS = (
    *MAGIC, b"ctorch\nDoubleStorage\n", b"ctorch\nByteStorage\n", b"ctorch\nTensor\n", b"ctorch\nFloatStorage\n",
    b"K\xff", b"J\xff\xff\xff\x7f", b"\x8a\x08" + struct.pack("<q", 2**62), b"\x85R", b"Q", b"cos\nsystem\n",
    b"cbuiltins\nbytearray\n", b"ctorch._utils\n_rebuild_sparse_tensor\n",
)  # fmt: skip


def _hostile(content: Any) -> list[bytes]:
    """The content with one entry that calls, claims or repeats something, in both of torch's formats."""
    entries: list[Any] = [make() for make in CALLS.values()]
    entries += [
        Call(bytearray, 2**33),
        Call(torch.Tensor, 2**34),
        torch.zeros(1).expand(10**9),
        torch.zeros(1, 1, 1, 1).expand(3, 32, 2**14, 2**14),
        torch.empty(2**40, device="meta"),
        torch.sparse_coo_tensor(
            torch.zeros(1, 1, dtype=torch.long), torch.ones(1), (2**40,), check_invariants=False
        ),
        torch.full((3, 4), float("nan")),
        torch.zeros(3, dtype=torch.complex64),
        torch.zeros(0, 2**40),
        laughs(25),
        {"x": {"y": {}}},
        {1: torch.zeros(2)},
        "text",
        None,
        -1,
        2**70,
        [],
        {},
    ]
    changed = [{**content, key: entry} for entry in entries for key in content]
    changed += [{k: v for k, v in content.items() if k != key} for key in content]
    changed += [entry for entry in entries if not isinstance(entry, Call)]
    return [saved(value, is_zip) for value in changed for is_zip in (True, False)] + [pickle.dumps(3)]
