"""Reading the arrays out of pickled model files without running anything they contain (SPEC 16).

A pickle may name any Python callable. Here every name it may use stands for an inert record defined below
that only keeps what it is given; numpy, scipy and chumpy themselves are never called. All other names are
refused. The records are turned into arrays afterwards.
"""

from __future__ import annotations

import io
import math
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from common.errors import UserError
from common.io.array import NUMBERS
from common.io.files import open_file
from common.io.guarded_pickle import GuardedUnpickler

_BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, MemoryError, RecursionError, ImportError, OSError,
    AssertionError, struct.error, zlib.error,
)  # fmt: skip
_PLAIN_TYPES = (str, bytes, int, float, bool, type(None))
_MAX_DIMENSIONS = 8
_MAX_TEXT = 80  # characters of a refused name in a message
# All arrays together may take so many bytes, and so many for each byte of the pickle besides: sparse matrices are made
# dense, and arrays can share their bytes.
_FREE_ARRAY_BYTES, _ARRAY_BYTES_PER_BYTE = 2**24, 2
# A compressed file may inflate to so many bytes, or to so many times its size; of small things it may hold as many as
# a file of so many times its size.
_FREE_BYTES, _MAX_RATIO, _MAX_RATIO_OF_SMALL = 2**24, 100, 8
# Opcodes; arrays, one a frame, have one for ten bytes.
_MAX_STEPS, _FREE_STEPS, _BYTES_FOR_STEP = 2**22, 2**18, 8
_COMPRESSED = (b"\x78\x01", b"\x78\x5e", b"\x78\x9c", b"\x78\xda", b"\x1f\x8b")  # zlib by level, gzip


class _Record:
    """Keeps the arguments and the state a pickled object was made with."""

    args: tuple[Any, ...] = ()
    state: Any = None

    def __new__(cls, *args: Any) -> _Record:
        record = super().__new__(cls)
        record.args = args
        return record

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _Array(_Record):
    """numpy.ndarray; its state is (version, shape, dtype, is_fortran, data)."""


class _DType(_Record):
    """numpy.dtype; args (code, align, copy), state (version, byte order, ...)."""


class _Scalar(_Record):
    """A numpy scalar; args (dtype, data)."""


class _Buffer(_Record):
    """An array of pickle protocol 5; args (data, dtype, shape, order)."""


class _JoblibArray(_Record):
    """joblib's stand-in for an array whose values follow it in the file; its state is a dict."""


class _Sparse(_Record):
    """A scipy.sparse matrix in compressed columns or rows."""


class _SparseColumns(_Sparse):
    pass


class _SparseRows(_Sparse):
    pass


class _Chumpy(_Record):
    """chumpy.ch.Ch; its state is a dict with the array as x."""


class _ChumpySelect(_Record):
    """chumpy.reordering.Select: elements idxs of array a, in preferred_shape."""


class _Object(_Record):
    """object, as old protocols name it for a base class."""


class _Set(_Record):
    """set; chumpy objects carry one that nothing here needs."""


class _Function:
    """A callable that a pickle can call but not alter."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it alters a function")


def _reconstruct_object(cls: Any, base: Any, state: Any) -> _Record:
    if not (isinstance(cls, type) and issubclass(cls, _Record)) or base is not _Object:
        raise pickle.UnpicklingError("an object of an unexpected class")
    return cls()


def _no_bytes() -> bytes:
    return b""


def _empty_dict(*factories: Any) -> dict[Any, Any]:
    if any(factory is not _DICT for factory in factories):
        raise pickle.UnpicklingError("a dictionary made in an unexpected way")
    return {}


_DICT = _Function(_empty_dict)


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", "latin-1") or not isinstance(text, str):
        raise pickle.UnpicklingError("bytes in an unexpected encoding")
    return text.encode("latin1")


_NAMES: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _Array,
    "numpy.dtype": _DType,
    "numpy.core.multiarray._reconstruct": _Array,
    "numpy.core.multiarray.scalar": _Scalar,
    "numpy.core.numeric._frombuffer": _Buffer,
    "scipy.sparse.csc.csc_matrix": _SparseColumns,
    "scipy.sparse.csr.csr_matrix": _SparseRows,
    "chumpy.ch.Ch": _Chumpy,
    "chumpy.reordering.Select": _ChumpySelect,
    "copyreg._reconstructor": _Function(_reconstruct_object),
    "copy_reg._reconstructor": _Function(_reconstruct_object),
    "builtins.object": _Object,
    "__builtin__.object": _Object,
    "builtins.set": _Set,
    "__builtin__.set": _Set,
    "builtins.bytes": _Function(_no_bytes),  # old protocols write b"" as bytes()
    "__builtin__.bytes": _Function(_no_bytes),
    "_codecs.encode": _Function(_encode),
    "builtins.dict": _DICT,
    "collections.OrderedDict": _DICT,
    "collections.defaultdict": _DICT,  # its argument is what makes missing entries, here dict again
    "joblib.numpy_pickle.NumpyArrayWrapper": _JoblibArray,
}


class _RecordUnpickler(GuardedUnpickler):
    key_types = (_Record,)  # hashed by identity; sets in chumpy objects hold them
    dispatch: dict[int, Callable[..., None]] = dict(GuardedUnpickler.dispatch)  # noqa: RUF012 (as its parent's)

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        # numpy 2 renamed numpy.core to numpy._core, scipy 1.8 scipy.sparse.csc to scipy.sparse._csc
        full = re.sub(r"^(numpy|scipy\.sparse)\._", r"\1.", f"{module}.{name}")
        if full not in _NAMES:
            raise _ForeignName(f"{module}.{name}"[:_MAX_TEXT])
        return _NAMES[full]

    def _load_build(self) -> None:
        self.load_build()
        if type(self.stack[-1]) is _JoblibArray:
            self.stack[-1] = self._following_array(self.stack[-1].state)

    def _following_array(self, state: dict[str, Any]) -> _Array:
        """The array whose values stand behind joblib's record in the file, after padding if it says so."""
        if state["subclass"] is not _Array:
            raise pickle.UnpicklingError("an array of an unexpected class")
        if state.get("numpy_array_alignment_bytes") is not None:
            self.read(self.read(1)[0])
        shape = _checked_shape(state["shape"])
        data = self.read(_to_dtype(state["dtype"]).itemsize * math.prod(shape))
        array = _Array()
        array.state = (1, shape, state["dtype"], state["order"] == "F", data)
        return array

    dispatch[pickle.BUILD[0]] = _load_build


class _ForeignName(Exception):
    """A pickle names something else than arrays."""


def read_model_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickled model file, its values arrays, numbers, strings or lists of them.

    UserError if the file is broken, holds something else than a dictionary, or names anything but arrays.
    """
    what, remedy = "model file", "download it again from its official site"
    content = read_pickle(path, what, remedy)
    if not isinstance(content, dict):
        raise UserError(f"{path} is not a readable {what} (it holds no dictionary); {remedy}")
    return content


def read_pickle(path: Path, what: str, remedy: str) -> Any:
    """The dictionary or list in a pickled file; UserError as `read_model_pickle`, calling the file `what`."""
    with open_file(path) as file:
        try:
            n_packed = file.seek(0, io.SEEK_END)
            pickled = _inflated(file)
            n_bytes = pickled.seek(0, io.SEEK_END)
            pickled.seek(0)
            n_of_small = min(n_bytes, _MAX_RATIO_OF_SMALL * n_packed)
            n_steps = min(_MAX_STEPS, _FREE_STEPS + n_of_small // _BYTES_FOR_STEP)
            content = _RecordUnpickler(pickled, n_of_small, n_steps).load()
            if not isinstance(content, dict | list):
                raise TypeError("it holds no dictionary")
            return _Converter(_FREE_ARRAY_BYTES + _ARRAY_BYTES_PER_BYTE * n_bytes)(content)
        except _ForeignName as error:
            raise UserError(
                f"{path} is refused: it contains {error}, and a {what} may hold only numpy, scipy.sparse and "
                f"chumpy arrays; {remedy}"
            ) from error
        except _BROKEN as error:
            reason = str(error) or type(error).__name__
            raise UserError(f"{path} is not a readable {what} ({reason}); {remedy}") from error


def _inflated(file: BinaryIO) -> BinaryIO:
    """The file itself, or what it inflates to if it was compressed (as joblib.dump does if told)."""
    file.seek(0)
    start = file.read(2)
    if start not in _COMPRESSED:
        return file
    file.seek(0)
    packed = file.read()
    most = max(_FREE_BYTES, _MAX_RATIO * len(packed))
    inflater = zlib.decompressobj(wbits=32 + zlib.MAX_WBITS)  # either header
    content = inflater.decompress(packed, most)
    if not inflater.eof:
        cut = "it is cut off" if not inflater.unconsumed_tail else f"it inflates to over {most} bytes"
        raise ValueError(cut)
    return io.BytesIO(content)


class _Converter:
    """Plain values, and arrays made of the records; what a pickle refers to often is converted once."""

    def __init__(self, max_bytes: int) -> None:
        self._bytes_left = max_bytes
        # id -> what was converted (so that it stays alive), result
        self._done: dict[int, tuple[Any, Any]] = {}

    def __call__(self, value: Any) -> Any:
        if isinstance(value, _PLAIN_TYPES):
            return value
        if id(value) not in self._done:
            self._done[id(value)] = value, self._convert(value)
        return self._done[id(value)][1]

    def _convert(self, value: Any) -> Any:
        if isinstance(value, _Set):
            return []
        if isinstance(value, list | tuple):
            return [self(item) for item in value]
        if isinstance(value, dict):
            keys = {key: self(key) if isinstance(key, _Scalar) else key for key in value}
            return {str(keys[key]): self(item) for key, item in value.items()}
        if isinstance(value, _Scalar):
            dtype, data = value.args
            return self._from_bytes(data, dtype, ())[()]
        return self._array(value)

    def _array(self, value: Any) -> np.ndarray:
        if isinstance(value, _Array):
            _, shape, dtype, is_fortran, data = value.state
            return self._from_bytes(data, dtype, shape, "F" if is_fortran else "C")
        if isinstance(value, _Buffer):
            data, dtype, shape, order = value.args
            return self._from_bytes(data, dtype, shape, "F" if order == "F" else "C")
        if isinstance(value, _Chumpy):
            return self._array(value.state["x"])
        if isinstance(value, _ChumpySelect):
            source, chosen = (self._array(value.state[key]) for key in ("a", "idxs"))
            if source.dtype.kind not in NUMBERS:
                raise TypeError("a selection from something else than numbers")
            self._take(chosen.size * source.itemsize)
            return source.reshape(-1)[chosen].reshape(self(value.state["preferred_shape"]))
        if isinstance(value, _Sparse):
            return self._dense(value)
        raise TypeError(f"a {type(value).__name__.lstrip('_')} where an array was expected")

    def _from_bytes(self, data: Any, dtype: Any, shape: Any, order: Literal["C", "F"] = "C") -> np.ndarray:
        if isinstance(data, str):  # bytes of a Python 2 pickle
            data = data.encode("latin1")
        if not isinstance(data, bytes | bytearray):
            raise TypeError("array data that are not bytes")
        self._take(len(data))
        return np.frombuffer(data, _to_dtype(dtype)).reshape(_checked_shape(shape), order=order).copy()

    def _take(self, n_bytes: int) -> None:
        self._bytes_left -= n_bytes
        if self._bytes_left < 0:
            raise ValueError("arrays far larger than the file")

    def _dense(self, record: _Sparse) -> np.ndarray:
        """A compressed sparse matrix as a dense array."""
        state = record.state
        shape = self(state["_shape" if "_shape" in state else "shape"])
        if not (
            isinstance(shape, list) and len(shape) == 2 and all(type(n) is int and n >= 0 for n in shape)
        ):
            raise ValueError("sparse matrix of an unusual shape")
        data, minor, start = (self._array(state[key]) for key in ("data", "indices", "indptr"))
        by_column = isinstance(record, _SparseColumns)
        n_major = shape[1 if by_column else 0]
        if len(start) != n_major + 1:
            raise ValueError(f"sparse matrix shape {shape}")
        if data.dtype.kind not in NUMBERS or minor.dtype.kind not in "iu" or start.dtype.kind not in "iu":
            raise TypeError("sparse matrix of something else than numbers")
        if not (
            start[0] == 0 and start[-1] == len(data) == len(minor) and (np.diff(start.astype(int)) >= 0).all()
        ):
            raise ValueError("sparse matrix entries that do not fit together")
        major = np.repeat(np.arange(n_major), np.diff(start.astype(int)))
        self._take(math.prod(shape) * data.itemsize)
        dense = np.zeros(shape, data.dtype)
        np.add.at(dense, (minor, major) if by_column else (major, minor), data)
        return dense


def _to_dtype(record: Any) -> np.dtype:
    """A number, boolean or string type; object and structured types are refused."""
    code = record.args[0] if isinstance(record, _DType) and record.args else None
    if not (isinstance(code, str) and re.fullmatch(r"[biufSU?][0-9]{0,9}", code)):
        raise TypeError("array elements of another type than numbers and text")
    order = record.state[1] if record.state else "="
    if order not in ("<", ">", "=", "|"):
        raise TypeError("an unusual byte order")
    return np.dtype(code if order in "=|" else order + code)


def _checked_shape(shape: Any) -> tuple[int, ...]:
    if not (isinstance(shape, tuple) and len(shape) <= _MAX_DIMENSIONS):
        raise TypeError("an unusual array shape")
    if not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("an unusual array shape")
    return shape
