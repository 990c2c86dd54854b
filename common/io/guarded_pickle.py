"""A pickle machine that reads no more than its file holds and takes no key that is slow to hash.

What a pickle may name is for the subclass to say (`find_class`); this stops what it can do to time and memory
without naming anything.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO, ClassVar

_KEY_TYPES = (str, bytes, bool, float, type(None))
_MAX_KEY = 2**32  # larger integers can be chosen so that all fall on one place of a dict


class _Clipped:
    """A file of which no read asks for more than is left, because a read allocates what it asks for."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        start = file.tell()
        self._end = file.seek(0, io.SEEK_END)
        file.seek(start)
        self.readline = file.readline

    def read(self, n_bytes: int) -> bytes:
        return self._file.read(min(n_bytes, self._end - self._file.tell()))


_PythonUnpickler: Any = pickle._Unpickler  # its stubs know the C one's members only


class GuardedUnpickler(_PythonUnpickler):
    """The unpickler written in Python: a flipped byte makes the C one allocate gigabytes for its memo.

    Keys of dicts and elements of sets may be text, bytes, small numbers and instances of `key_types`: nested
    tuples take exponential time to hash. Anything else raises UnpicklingError.
    """

    key_types: tuple[type, ...] = ()
    dispatch: ClassVar[dict[int, Callable[..., None]]] = dict(_PythonUnpickler.dispatch)

    def __init__(self, file: BinaryIO) -> None:
        clipped = file if isinstance(file, io.BytesIO) else _Clipped(file)  # BytesIO clips by itself, faster
        super().__init__(clipped, encoding="latin1", fix_imports=False)

    def get_extension(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"extension code {code}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a persistent id")

    def _check_keys(self, keys: list[Any]) -> None:
        for key in keys:
            if type(key) is str:
                continue
            is_small = type(key) is int and abs(key) < _MAX_KEY
            if not is_small and not isinstance(key, (*_KEY_TYPES, *self.key_types)):
                raise pickle.UnpicklingError(f"a key of type {type(key).__name__.lstrip('_')}")

    def _load_setitem(self) -> None:
        self._check_keys(self.stack[-2:-1])
        self.load_setitem()

    def _load_setitems(self) -> None:
        self._check_keys(self.stack[::2])
        self.load_setitems()

    def _load_dict(self) -> None:
        self._check_keys(self.stack[::2])
        self.load_dict()

    def _load_additems(self) -> None:
        self._check_keys(self.stack)
        self.load_additems()

    def _load_frozenset(self) -> None:
        self._check_keys(self.stack)
        self.load_frozenset()

    def _load_bytearray8(self) -> None:
        n_bytes = int.from_bytes(self.read(8), "little")
        self.append(bytearray(self.read(n_bytes)))

    dispatch[pickle.SETITEM[0]] = _load_setitem
    dispatch[pickle.SETITEMS[0]] = _load_setitems
    dispatch[pickle.DICT[0]] = _load_dict
    dispatch[pickle.ADDITEMS[0]] = _load_additems
    dispatch[pickle.FROZENSET[0]] = _load_frozenset
    dispatch[pickle.BYTEARRAY8[0]] = _load_bytearray8
