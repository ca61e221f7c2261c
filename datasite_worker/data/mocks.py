"""Makes what the centre sees instead of the data. Uses the data's columns and types, never its values.

A synthetic mock is drawn from a seed made only of names. It shows the names and types of columns and arrays, and every
length of an array except the first. It shows the number of rows only when the owner sets ``rows: same``.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pandas as pd

from datasite_worker.data.files import Asset, Content, Unusable

_WORDS = np.array(["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta"])
_TEXT = np.dtype("<U8")  # the width of the data's own texts is that of the longest
_FIRST_DAY = np.datetime64("2000-01-01", "s")


def synthetic(content: Content, dataset: str, rows: int | None) -> Content:
    """Random values of the same shape and kinds. ``rows`` None: as many as the data has."""
    return {name: _asset(asset, f"{dataset}/{name}", rows) for name, asset in content.items()}


def own(content: Content, mock: Content) -> Content:
    """The owner's own mock, under the names that the data has. Raises Unusable when it does not fit."""
    if content.keys() != mock.keys():
        raise Unusable("the mock does not have the same arrays as the data")
    for name, asset in content.items():
        other = mock[name]
        if isinstance(asset, pd.DataFrame) and isinstance(other, pd.DataFrame):
            if list(asset.columns) != list(other.columns):
                raise Unusable("the mock does not have the same columns as the data")
        elif asset.ndim != other.ndim:
            raise Unusable(f"the mock's array {name} has a different number of dimensions")
    return mock


def _asset(asset: Asset, seed: str, rows: int | None) -> Asset:
    count = len(asset) if rows is None and asset.ndim else rows or 0
    if isinstance(asset, pd.DataFrame):
        columns = {name: _column(asset[name].dtype, count, _generator(f"{seed}/{name}")) for name in asset.columns}
        return pd.DataFrame(columns, index=pd.RangeIndex(count))
    shape = (count, *asset.shape[1:]) if asset.ndim else ()
    if asset.dtype.kind == "U" and 0 in shape:
        raise Unusable("PySyft cannot store an empty array of text; choose another mock rule")
    dtype = _TEXT if asset.dtype.kind == "U" else asset.dtype
    return np.asarray(_values(dtype, int(np.prod(shape)), _generator(seed)), dtype=dtype).reshape(shape)


def _generator(seed: str) -> np.random.Generator:
    return np.random.default_rng(int.from_bytes(hashlib.sha256(seed.encode()).digest()[:8]))


def _column(dtype: Any, count: int, chance: np.random.Generator) -> Any:
    """A column of ``dtype``; text where pandas cannot make one."""
    if isinstance(dtype, pd.CategoricalDtype):
        return pd.Categorical(chance.choice(_WORDS, count), categories=_WORDS, ordered=bool(dtype.ordered))
    plain = getattr(dtype, "numpy_dtype", dtype) if pd.api.types.is_numeric_dtype(dtype) else dtype
    if isinstance(dtype, pd.DatetimeTZDtype):
        moments = pd.to_datetime(_values(np.dtype("M8[s]"), count, chance)).tz_localize("UTC")
        return moments.tz_convert(dtype.tz).as_unit(dtype.unit)
    if isinstance(plain, np.dtype) and plain.kind in "biufMm":
        return pd.array(_values(plain, count, chance), dtype=dtype)
    return pd.array(chance.choice(_WORDS, count), dtype=dtype if isinstance(dtype, pd.StringDtype) else object)


def _values(dtype: Any, count: int, chance: np.random.Generator) -> Any:
    match dtype.kind:
        case "b":
            return chance.integers(0, 2, count).astype(bool)
        case "i" | "u":
            return chance.integers(0, 100, count).astype(dtype)
        case "f":
            return chance.normal(size=count).astype(dtype)
        case "M":
            return (_FIRST_DAY + chance.integers(0, 365 * 86400, count)).astype(dtype)
        case "m":
            return chance.integers(0, 86400, count).astype("m8[s]").astype(dtype)
    return chance.choice(_WORDS, count).astype(dtype)
