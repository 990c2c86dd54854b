"""A pickle machine that reads no more than its file holds, makes not too many things, and takes no key that is slow
to hash.

What a pickle may name is for the subclass to say (`find_class`); this stops what it can do to time and memory
without naming anything.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from typing import Any, BinaryIO

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


_FREE_MADE, _BYTES_FOR_EACH = 20_000, 16
# Opcodes after which there is another container or object: tens of bytes of memory for one or two in the file.
_MAKING = frozenset(
    code[0]
    for code in (
        pickle.EMPTY_LIST, pickle.LIST, pickle.EMPTY_DICT, pickle.DICT, pickle.EMPTY_SET, pickle.FROZENSET,
        pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.REDUCE, pickle.NEWOBJ,
        pickle.NEWOBJ_EX, pickle.OBJ, pickle.INST, pickle.MARK, pickle.GLOBAL, pickle.STACK_GLOBAL,
        pickle.BYTEARRAY8,
    )
)  # fmt: skip


class _Counted(dict[int, Callable[..., None]]):
    """What each opcode does, which ends a pickle of too many opcodes or containers."""

    def __init__(self, dispatch: dict[int, Callable[..., None]], max_steps: int, max_made: int) -> None:
        super().__init__(dispatch)
        self._steps_left = max_steps
        self._made_left = max_made

    def __getitem__(self, code: int) -> Callable[..., None]:
        self._steps_left -= 1
        if code in _MAKING:
            self._made_left -= 1
        if self._steps_left < 0 or self._made_left < 0:
            raise pickle.UnpicklingError("too many small things for its size")
        return super().__getitem__(code)


class GuardedUnpickler(_PythonUnpickler):
    """The unpickler written in Python: a flipped byte makes the C one allocate gigabytes for its memo.

    Keys of dicts and elements of sets may be text, bytes, small numbers and instances of `key_types`: nested
    tuples take exponential time to hash. Anything else raises UnpicklingError, and so do over `max_steps` opcodes
    (a second for three hundred thousand) and over a container or object for each 16 bytes of a file of `n_bytes`
    (frames of nested lists of three numbers have one for 18 or more).
    """

    key_types: tuple[type, ...] = ()
    dispatch: dict[int, Callable[..., None]] = dict(_PythonUnpickler.dispatch)  # noqa: RUF012 (an instance's counts)

    def __init__(self, file: BinaryIO, n_bytes: int, max_steps: int) -> None:
        clipped = file if isinstance(file, io.BytesIO) else _Clipped(file)  # BytesIO clips by itself, faster
        super().__init__(clipped, encoding="latin1", fix_imports=False)
        max_made = _FREE_MADE + n_bytes // _BYTES_FOR_EACH
        self.dispatch = _Counted(type(self).dispatch, max_steps, max_made)

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
