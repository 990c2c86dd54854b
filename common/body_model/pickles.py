"""Reading the arrays out of pickled model files without running anything they contain (SPEC 16).

A pickle may name any Python callable. Here every name it may use stands for an inert record defined below
that only keeps what it is given; numpy, scipy and chumpy themselves are never called. All other names are
refused. The records are turned into arrays afterwards.
"""

from __future__ import annotations

import pickle
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from common.errors import UserError

_BROKEN = (
    pickle.UnpicklingError, EOFError, ValueError, TypeError, KeyError, IndexError, AttributeError,
    OverflowError, MemoryError, RecursionError, ImportError, OSError,
    AssertionError, struct.error,
)  # fmt: skip
_PLAIN_TYPES = (str, bytes, int, float, bool, type(None))
_MAX_DIMENSIONS = 8
_MAX_ELEMENTS = 2**28  # of a sparse matrix made dense: a hundred times a joint regressor


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


def _encode(text: Any, encoding: Any) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError("bytes in an unexpected encoding")
    return str(text).encode("latin1")


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
}


class _RecordUnpickler(pickle._Unpickler):
    """The unpickler written in Python: a flipped byte makes the C one allocate gigabytes for its memo."""

    def __init__(self, file: BinaryIO, source: Path) -> None:
        super().__init__(file, encoding="latin1", fix_imports=False)
        self._source = source

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        # numpy 2 renamed numpy.core to numpy._core, scipy 1.8 scipy.sparse.csc to scipy.sparse._csc
        full = re.sub(r"^(numpy|scipy\.sparse)\._", r"\1.", f"{module}.{name}")
        if full not in _NAMES:
            raise UserError(
                f"{self._source} is refused: it contains {module}.{name}, and a model file may hold only "
                "numpy, scipy.sparse and chumpy arrays; download the file again from its official site"
            )
        return _NAMES[full]

    def get_extension(self, code: int) -> Any:
        raise pickle.UnpicklingError(f"extension code {code}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("a persistent id")


def read_model_pickle(path: Path) -> dict[str, Any]:
    """The dictionary in a pickled model file, its values arrays, numbers, strings or lists of them.

    UserError if the file is broken, holds something else than a dictionary, or names anything but arrays.
    """
    if not path.is_file():
        raise UserError(f"{path} is missing or not a file")
    try:
        with path.open("rb") as file:
            content = _RecordUnpickler(file, path).load()
        if not isinstance(content, dict):
            raise TypeError("it holds no dictionary")
        return {str(key): _to_value(value) for key, value in content.items()}
    except _BROKEN as error:
        raise UserError(
            f"{path} is not a readable model file ({error}); download it again from its official site"
        ) from error


def _to_value(value: Any) -> Any:
    """Plain values, and arrays made of the records."""
    if isinstance(value, _PLAIN_TYPES):
        return value
    if isinstance(value, _Set):
        return []
    if isinstance(value, list | tuple):
        return [_to_value(item) for item in value]
    if isinstance(value, dict):
        return {str(key): _to_value(item) for key, item in value.items()}
    if isinstance(value, _Scalar):
        dtype, data = value.args
        return _from_bytes(data, _to_dtype(dtype), ())[()]
    return _to_array(value)


def _to_array(value: Any) -> np.ndarray:
    if isinstance(value, _Array):
        _, shape, dtype, is_fortran, data = value.state
        return _from_bytes(data, _to_dtype(dtype), shape, "F" if is_fortran else "C")
    if isinstance(value, _Buffer):
        data, dtype, shape, order = value.args
        return _from_bytes(data, _to_dtype(dtype), shape, order)
    if isinstance(value, _Chumpy):
        return _to_array(value.state["x"])
    if isinstance(value, _ChumpySelect):
        elements = _to_array(value.state["a"]).reshape(-1)[_to_array(value.state["idxs"])]
        return elements.reshape(_to_value(value.state["preferred_shape"]))
    if isinstance(value, _Sparse):
        return _to_dense(value)
    raise TypeError(f"a {type(value).__name__.lstrip('_')} where an array was expected")


def _to_dtype(record: Any) -> np.dtype:
    """A number, boolean or string type; object and structured types are refused."""
    code = record.args[0] if isinstance(record, _DType) else None
    if not (isinstance(code, str) and re.fullmatch(r"[biufSU?][0-9]*", code)):
        raise TypeError(f"array elements of type {code!r}")
    order = record.state[1] if record.state else "="
    if order not in ("<", ">", "=", "|"):
        raise TypeError(f"byte order {order!r}")
    return np.dtype(code if order in "=|" else order + code)


def _from_bytes(data: Any, dtype: np.dtype, shape: Any, order: str = "C") -> np.ndarray:
    if isinstance(data, str):  # bytes of a Python 2 pickle
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray):
        raise TypeError("array data that are not bytes")
    if len(shape) > _MAX_DIMENSIONS or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError(f"array shape {shape!r}")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if order == "F" else "C").copy()


def _to_dense(record: _Sparse) -> np.ndarray:
    """A compressed sparse matrix as a dense array."""
    state = record.state
    shape = tuple(_to_value(state["_shape" if "_shape" in state else "shape"]))
    data, minor, start = (_to_array(state[key]) for key in ("data", "indices", "indptr"))
    by_column = isinstance(record, _SparseColumns)
    n_major = shape[1 if by_column else 0]
    if len(shape) != 2 or len(start) != n_major + 1 or np.prod(shape, dtype=float) > _MAX_ELEMENTS:
        raise ValueError(f"sparse matrix shape {shape}")
    if not (
        start[0] == 0 and start[-1] == len(data) == len(minor) and (np.diff(start.astype(int)) >= 0).all()
    ):
        raise ValueError("sparse matrix entries that do not fit together")
    major = np.repeat(np.arange(n_major), np.diff(start))
    dense = np.zeros(shape, data.dtype)
    np.add.at(dense, (minor, major) if by_column else (major, minor), data)
    return dense
