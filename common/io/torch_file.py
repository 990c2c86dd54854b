"""What torch.save wrote, from anybody: checked before and after torch.load, which itself runs no code."""

from __future__ import annotations

import io
import pickle
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from common.errors import UserError
from common.io.files import open_file
from common.io.guarded_pickle import GuardedUnpickler

_BROKEN = (
    RuntimeError, pickle.UnpicklingError, zipfile.BadZipFile, EOFError, OSError, ValueError, KeyError,
    TypeError, AttributeError, IndexError, MemoryError, OverflowError, RecursionError, AssertionError,
    struct.error, NotImplementedError,
)  # fmt: skip
_NAMES = (
    "collections.OrderedDict", "torch._utils._rebuild_tensor_v2", "torch._utils._rebuild_parameter",
    "torch.Size", "torch.device", "_codecs.encode",
)  # fmt: skip
_ITEM_SIZES = {
    "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "BFloat16Storage": 2, "LongStorage": 8,
    "IntStorage": 4, "ShortStorage": 2, "CharStorage": 1, "ByteStorage": 1, "BoolStorage": 1,
}  # fmt: skip
# Bytes of the part without tensors; a snapshot's with a thousand frames takes four million.
_MAX_PICKLE = 2**25
# Opcodes of the pickle; a snapshot has one for ten bytes.
_MAX_STEPS, _FREE_STEPS, _BYTES_FOR_STEP = 2**22, 10**5, 8
_MAX_NODES = 3 * 10**5  # of containers, counted as often as they appear
_MAX_DEPTH = 32
_N_LEGACY_PICKLES = 3  # magic number, protocol and system come first in files of torch before 1.6


def read_torch_file(path: Path, what: str, remedy: str, with_checksums: bool = False) -> Any:
    """Containers, plain values and CPU tensors of a file written by torch.save; no code in it can run.

    UserError "... is truncated or not `what`; `remedy`" if it is broken, names anything but tensors, or declares
    sizes that it does not have. torch.load does not look at checksums; `with_checksums` does, before it.
    """
    with open_file(path) as file:
        try:
            if zipfile.is_zipfile(file):
                _check_archive(file, with_checksums)
            else:
                _check_legacy(file)
            file.seek(0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of unusual pickle protocols
                content = torch.load(file, map_location="cpu", weights_only=True)
            _check_content(content)
        except _BROKEN as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"{path} is truncated or not {what} ({reason}); {remedy}") from error
    return content


class _Named:
    """Stands for whatever a pickle makes with a name; keeps nothing but the name."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self, *args: Any) -> _Named:
        return _MADE

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass


_MADE = _Named("made by a call")


class _StorageScanner(GuardedUnpickler):
    """Notes which storages a pickle of torch.save refers to, and builds nothing."""

    def __init__(self, file: BinaryIO, n_bytes: int) -> None:
        super().__init__(file, n_bytes, min(_MAX_STEPS, _FREE_STEPS + n_bytes // _BYTES_FOR_STEP))
        self.n_bytes: dict[str, int] = {}  # storage key -> declared size

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        is_storage = module == "torch" and name in _ITEM_SIZES
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if full not in _NAMES and not is_storage and not is_dtype:
            raise pickle.UnpicklingError(
                f"it contains {full[:80]}, and may hold only tensors and plain values"
            )
        return _Named(name)

    def persistent_load(self, pid: Any) -> Any:
        if not (isinstance(pid, tuple) and len(pid) in (5, 6) and pid[0] == "storage"):
            raise pickle.UnpicklingError("an unexpected persistent id")
        storage, key, location, n_elements = pid[1:5]
        if not (isinstance(storage, _Named) and isinstance(key, str) and isinstance(location, str)):
            raise pickle.UnpicklingError("an unexpected storage")
        if not (type(n_elements) is int and n_elements >= 0) or pid[5:] not in ((), (None,)):
            raise pickle.UnpicklingError(f"storage {key[:20]} of an unexpected size")
        n_bytes = n_elements * _ITEM_SIZES[storage.name]
        if self.n_bytes.setdefault(key, n_bytes) != n_bytes:
            raise pickle.UnpicklingError(f"storage {key[:20]} has two sizes")
        return _Named("storage")


def _check_archive(file: BinaryIO, with_checksums: bool) -> None:
    """Raise unless every storage has in the archive the size that the pickle declares."""
    file.seek(0)
    if file.read(4) != b"PK\x03\x04":
        raise ValueError("something stands before its beginning")
    size = file.seek(0, 2)
    with zipfile.ZipFile(file) as archive:
        records = {info.filename.partition("/")[2]: info for info in archive.infolist()}
        if len(records) < len(archive.infolist()):
            raise ValueError("it holds a record twice")
        if any(info.compress_type != zipfile.ZIP_STORED for info in records.values()):
            raise ValueError("its records are compressed")
        if sum(info.file_size for info in records.values()) > size:
            raise ValueError("its records are larger than the file")
        if records["data.pkl"].file_size > _MAX_PICKLE:
            raise ValueError("an unusual amount of other things than tensors")
        scanner = _StorageScanner(io.BytesIO(archive.read(records["data.pkl"])), size)
        scanner.load()
        for key, n_bytes in scanner.n_bytes.items():
            if records[f"data/{key}"].file_size != n_bytes:
                raise ValueError(f"storage {key[:20]} has another size than it declares")
        damaged = archive.testzip() if with_checksums else None
        if damaged is not None:
            raise ValueError(f"wrong checksum of {damaged}")


def _check_legacy(file: BinaryIO) -> None:
    """Files of torch before 1.6: pickles, then each storage as its number of elements and its bytes."""
    size = file.seek(0, 2)
    file.seek(0)
    for _ in range(_N_LEGACY_PICKLES):
        _StorageScanner(file, size).load()
    scanner = _StorageScanner(file, size)
    scanner.load()
    keys = _StorageScanner(file, size).load()
    if not (isinstance(keys, list) and sorted(keys) == sorted(scanner.n_bytes)):
        raise ValueError("its storages are not those that its tensors need")
    for key in keys:
        n_elements = int.from_bytes(file.read(8), "little")
        n_bytes = scanner.n_bytes[key]
        if n_elements > n_bytes or n_bytes % max(n_elements, 1) or file.tell() + n_bytes > size:
            raise ValueError(f"storage {key[:20]} has another size than it declares")
        file.seek(n_bytes, 1)


def _check_content(content: Any) -> None:
    """ValueError unless it is a tree of usual size with plain CPU tensors that have memory of their own size."""
    n_nodes, stack = 0, [(content, 0)]
    while stack:
        value, depth = stack.pop()
        n_nodes += 1
        if n_nodes > _MAX_NODES or depth > _MAX_DEPTH:
            raise ValueError("containers in containers without end")
        if isinstance(value, dict):
            stack += [(entry, depth + 1) for entry in value.values()]
        elif isinstance(value, list | tuple):
            stack += [(entry, depth + 1) for entry in value]
        elif isinstance(value, Tensor):
            _check_tensor(value)


def _check_tensor(tensor: Tensor) -> None:
    if tensor.layout is not torch.strided or tensor.device.type != "cpu":
        raise ValueError("an unusual tensor")
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError("a tensor that is larger than its memory")
