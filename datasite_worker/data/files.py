"""CSV, Parquet and NPZ files as what PySyft can carry: data frames and arrays. Reads one file; runs nothing in it.

``Unusable`` is shown to everybody (``/factory.status`` is public), so its text contains no value, path or count of
the data.
"""

from __future__ import annotations

import ctypes
import gc
import io
import os
import stat
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow
import pyarrow.parquet

Asset: TypeAlias = "pd.DataFrame | np.ndarray[Any, Any]"
Content: TypeAlias = dict[str, Asset]
"""What one file holds, by the name of the asset: a table under the name of its dataset, arrays under their own."""

MOST_BYTES = 256 * 1024**2
"""Limit for a file, and for its content in memory. PySyft serialises all data at once, and several times."""
_MOST_ARRAYS = 100
_SAMPLE = 1024**2
_FORMAT: Any = np.lib.format  # its functions have no types


class Unusable(Exception):
    """There is nothing to publish. The message says why, and everybody may read it."""


class Blocked(Unusable):
    """The file did not cause the error: another try may succeed."""


Look = tuple[int, int, int, int]
"""When a file was written, its size, its inode, and when these last changed: while all are the same, so is the file."""


def look(path: Path) -> Look:
    """The file's current state. Raises Unusable when it cannot be read."""
    try:
        found = path.stat()
    except FileNotFoundError:
        raise Unusable("the file does not exist") from None
    except OSError as error:
        raise Unusable(f"the file cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(found.st_mode):
        raise Unusable("not a regular file")
    if found.st_size > MOST_BYTES:
        raise Unusable(TOO_LARGE)
    if not os.access(path, os.R_OK):
        raise Unusable("the file cannot be read: Permission denied")
    return found.st_mtime_ns, found.st_size, found.st_ino, found.st_ctime_ns


TOO_LARGE = f"larger than {MOST_BYTES // 1024**2} MiB, the limit for one file"


def read(path: Path) -> bytes:
    """The file's bytes, never more than ``MOST_BYTES``. Raises Unusable."""
    try:
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            raw = file.read(MOST_BYTES + 1)
    except FileNotFoundError:
        raise Blocked("the file does not exist") from None
    except OSError as error:
        raise Blocked(f"the file cannot be read: {error.strerror}") from None
    if len(raw) > MOST_BYTES:
        raise Unusable(TOO_LARGE)
    return raw


def parsed(raw: bytes, kind: str, name: str) -> Content:
    """What a file of that ``kind`` (.csv, .parquet, .npz) holds. Raises Unusable."""
    try:
        content = _arrays(raw) if kind == ".npz" else {name: _KINDS[kind](raw)}
    except Unusable:
        raise
    # Broken files raise exceptions of many kinds, in four libraries; their texts may contain values.
    except Exception as error:
        raise Unusable(f"not a readable {kind[1:].upper()} file ({type(error).__name__})") from error
    if not content:
        raise Unusable("the file contains no arrays")
    return content


def _csv(raw: bytes) -> pd.DataFrame:
    if _expected_in_memory(raw) > MOST_BYTES:
        raise Unusable(TOO_LARGE)
    return _fitting(pd.read_csv(io.BytesIO(raw), low_memory=False))


def _expected_in_memory(raw: bytes) -> float:
    """Estimated from the first MiB: short texts need thirty times as much memory as in the file."""
    if len(raw) <= _SAMPLE:
        return 0.0
    sample = raw[: raw.rfind(b"\n", 0, _SAMPLE) + 1]
    if not sample:
        return 0.0
    return _weight(pd.read_csv(io.BytesIO(sample))) / len(sample) * len(raw)


def _parquet(raw: bytes) -> pd.DataFrame:
    told = pyarrow.parquet.ParquetFile(io.BytesIO(raw)).metadata
    unpacked = sum(told.row_group(i).total_byte_size for i in range(told.num_row_groups))
    if max(unpacked, told.num_rows * told.num_columns * 8) > MOST_BYTES:
        raise Unusable(TOO_LARGE)
    frame = pd.read_parquet(io.BytesIO(raw), engine="pyarrow")
    return _fitting(frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index())


def _weight(frame: pd.DataFrame) -> int:
    return int(frame.memory_usage(deep=True).sum())


def _fitting(frame: pd.DataFrame) -> pd.DataFrame:
    if _weight(frame) > MOST_BYTES:
        raise Unusable(TOO_LARGE)
    if not len(frame.columns):
        raise Unusable("the table has no columns")
    frame.columns = frame.columns.map(str)
    pyarrow.Table.from_pandas(frame)  # how PySyft carries it: what does not fit is refused before anything is touched
    return frame


_KINDS: dict[str, Callable[[bytes], pd.DataFrame]] = {".csv": _csv, ".parquet": _parquet}


def _arrays(raw: bytes) -> dict[str, Any]:
    with zipfile.ZipFile(io.BytesIO(raw)) as packed:
        members = packed.infolist()
        if len(members) > _MOST_ARRAYS:
            raise Unusable(f"the file contains more than {_MOST_ARRAYS} arrays")
        unpacked = sum(max(one.file_size, _promised(packed, one)) for one in members)
    if unpacked > MOST_BYTES:
        raise Unusable(TOO_LARGE)
    with np.load(io.BytesIO(raw), allow_pickle=False) as loaded:
        return {name: _carried(name, loaded[name]) for name in loaded.files}


def _promised(packed: zipfile.ZipFile, member: zipfile.ZipInfo) -> int:
    """The size in bytes that the array's header gives. Raises Unusable for an array of Python objects."""
    with packed.open(member) as file:
        first = _FORMAT.read_magic(file) == (1, 0)
        header = _FORMAT.read_array_header_1_0 if first else _FORMAT.read_array_header_2_0
        shape, _, dtype = header(file)
    if dtype.hasobject:
        raise Unusable("the file contains pickled Python objects, which a datasite never loads")
    return int(np.prod(shape, dtype=float) * dtype.itemsize)


def _carried(name: str, array: Any) -> Any:
    """In the byte order and layout that PySyft expects; any other would arrive as wrong numbers."""
    if array.dtype.kind not in "biufU" or (array.dtype.itemsize > 8 and array.dtype.kind != "U"):
        raise Unusable(f"array {name}: PySyft supports numbers, booleans and text, not {array.dtype}")
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("=")).reshape(array.shape)


def give_back() -> None:
    """Return the memory that publishing used to the system: this process may do nothing else for months."""
    gc.collect()
    pyarrow.default_memory_pool().release_unused()
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):  # glibc's
        trim(0)
