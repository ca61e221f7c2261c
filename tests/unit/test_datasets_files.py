"""CSV, Parquet and NPZ: what is read, what is refused and in which words, and what a mock tells of the data."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from datasite_worker.data import files, mocks
from datasite_worker.data.files import Unusable, look, parsed, read

FRAME = pd.DataFrame(
    {
        "machine": ["SECRET-7", "SECRET-9", "SECRET-7"],
        "torque": [77123.25, 77123.5, np.nan],
        "count": [31337, 31338, 31339],
        "ok": [True, False, True],
        "at": pd.to_datetime(["1987-06-05", "1987-06-06", "1987-06-07"]),
        "zoned": pd.to_datetime(["1987-06-05", "1987-06-06", "1987-06-07"]).tz_localize("Europe/Berlin"),
        "took": pd.to_timedelta([31337, 31338, 31339], unit="s"),
        "kind": pd.Categorical(["SECRET-A", "SECRET-B", "SECRET-A"], ordered=True),
        "many": pd.array([31337, None, 31339], dtype="Int64"),
        "note": pd.array(["SECRET", None, "SECRET"], dtype="string"),
    }
)
SECRETS = ("SECRET", "77123", "3133", "1987-0")


def csv(frame: pd.DataFrame) -> bytes:
    return bytes(frame.to_csv(index=False).encode())


def parquet(frame: pd.DataFrame) -> bytes:
    return bytes(frame.to_parquet())


def tables(raw: bytes, kind: str, name: str) -> dict[str, Any]:
    """``parsed``, of a file that holds tables."""
    return dict(parsed(raw, kind, name))


def npz(**arrays: Any) -> bytes:
    packed = io.BytesIO()
    np.savez_compressed(packed, **arrays)
    return packed.getvalue()


def test_a_csv_file_is_one_table_under_the_name_of_its_dataset() -> None:
    """Columns and values as pandas reads them, a byte order mark or not."""
    for raw in (b"a,b\n1,x\n2,y\n", "\ufeffa,b\n1,x\n2,y\n".encode()):
        (name, frame), *more = tables(raw, ".csv", "bearings").items()
        assert ("bearings", []) == (name, more)
        assert {"a": [1, 2], "b": ["x", "y"]} == frame.to_dict("list")


def test_a_parquet_file_keeps_its_types() -> None:
    """Dates, categories and nullable numbers too; an index becomes a column."""
    frame = parsed(parquet(FRAME), ".parquet", "x")["x"]
    pd.testing.assert_frame_equal(FRAME, frame)
    indexed = tables(parquet(FRAME.set_index("at")), ".parquet", "x")["x"]
    assert ["at", "machine"] == list(indexed.columns[:2])


def test_an_npz_file_is_one_asset_for_each_array() -> None:
    """Numbers, booleans and texts, in the byte order and layout that PySyft carries."""
    told = {
        "x": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">i4"),
        "label": np.array(["a", "bc"]),
        "ok": np.array([True]),
        "one": np.array(3.0),
    }
    content = parsed(npz(**told), ".npz", "wear")
    assert list(told) == list(content)
    assert all(np.array_equal(told[name], content[name]) for name in told)
    assert (np.dtype("int32"), True) == (content["big"].dtype, content["x"].flags.c_contiguous)


BROKEN = [
    (".csv", b"", "not a readable CSV file"),
    (".csv", b"a,b\n1,2,3\n1,2,3,4\n", "not a readable CSV file"),
    (".csv", b"\xff\xfe\x00\x01\n", "not a readable CSV file"),
    (".parquet", b"PAR1 SECRET", "not a readable PARQUET file"),
    (".parquet", b"a,b\n1,2\n", "not a readable PARQUET file"),
    (".npz", b"PK SECRET", "not a readable NPZ file"),
    (".npz", npz(), "the file contains no arrays"),
    (
        ".npz",
        npz(x=np.array([{"SECRET": 1}], dtype=object)),
        "the file contains pickled Python objects, which a datasite never loads",
    ),
    (".npz", npz(x=np.zeros(2, dtype=complex)), "array x: PySyft supports numbers"),
    (".npz", npz(x=np.array(["1987"], dtype="M8[Y]")), "array x: PySyft supports numbers"),
    (".npz", npz(**{f"a{i}": np.zeros(1) for i in range(101)}), "the file contains more than 100 arrays"),
]


@pytest.mark.parametrize(
    ("kind", "raw", "why"), BROKEN, ids=[f"{row[0]}-{number}" for number, row in enumerate(BROKEN)]
)
def test_what_cannot_be_read_is_said_without_a_word_of_what_it_holds(kind: str, raw: bytes, why: str) -> None:
    """Everybody may read the reason."""
    with pytest.raises(Unusable) as caught:
        parsed(raw, kind, "x")
    assert str(caught.value).startswith(why)
    assert [] == [secret for secret in SECRETS if secret in str(caught.value)]


def test_a_column_that_pysyft_cannot_carry_is_refused() -> None:
    """Before anything of what was published is touched."""
    frame = pd.DataFrame({"a": [1.0, 2.0]})
    raw = parquet(frame)
    frame.columns = pd.Index(["a"])
    assert ["a"] == list(tables(raw, ".parquet", "x")["x"].columns)
    twice = pd.DataFrame([[1, 2]], columns=["a", "a"])
    with pytest.raises(ValueError, match="Duplicate column names"):
        files._fitting(twice)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """64 KiB instead of 256 MiB."""
    monkeypatch.setattr(files, "MOST_BYTES", 64 * 1024)
    monkeypatch.setattr(files, "_SAMPLE", 4096)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(
    ("kind", "raw"),
    [
        (".csv", b"a\n" + b"x\n" * 20_000),  # 40 kB in the file, twenty times as much in memory
        (".parquet", parquet(pd.DataFrame({"a": np.zeros(100_000)}))),  # a few hundred bytes in the file
        (".npz", npz(x=np.zeros(100_000))),
    ],
)
def test_what_would_fill_the_memory_is_refused_before_it_is_unpacked(kind: str, raw: bytes) -> None:
    """The file is within the limit, what it becomes is not."""
    assert len(raw) < files.MOST_BYTES
    with pytest.raises(Unusable) as caught:
        parsed(raw, kind, "x")
    assert files.TOO_LARGE == str(caught.value)


@pytest.mark.usefixtures("small")
def test_a_header_that_promises_more_than_the_file_has_is_refused() -> None:
    """A hundred bytes may claim to be a terabyte."""
    packed = npz(x=np.zeros(4))
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "<f8", "fortran_order": False, "shape": (10**12,)})
    with pytest.raises(Unusable):
        parsed(_zipped("x.npy", header.getvalue()), ".npz", "x")
    assert ["x"] == list(parsed(packed, ".npz", "x"))


def _zipped(name: str, raw: bytes) -> bytes:
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as made:
        made.writestr(name, raw)
    return packed.getvalue()


@pytest.mark.usefixtures("small")
def test_a_large_file_is_not_read_at_all(tmp_path: Path) -> None:
    """Its size is enough."""
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n" + b"1\n" * 40_000)
    for ask in (look, read):
        with pytest.raises(Unusable) as caught:
            ask(path)
        assert files.TOO_LARGE == str(caught.value)


def test_what_is_no_regular_file_is_not_waited_for(tmp_path: Path) -> None:
    """A pipe that nobody writes to, a folder, nothing."""
    os.mkfifo(tmp_path / "pipe.csv")
    told = []
    for name in ("pipe.csv", ".", "nothing.csv"):
        with pytest.raises(Unusable) as caught:
            look(tmp_path / name)
        told.append(str(caught.value))
    assert ["not a regular file", "not a regular file", "the file does not exist"] == told


def shown(content: files.Content) -> str:
    """All that can be seen of it, categories and the width of texts too."""
    parts = []
    for name, asset in content.items():
        parts += [name, repr(getattr(asset, "dtypes", asset.dtype if isinstance(asset, np.ndarray) else ""))]
        if isinstance(asset, pd.DataFrame):
            parts += [asset.to_csv()]
            parts += [str(asset[column].cat.categories) for column in asset if hasattr(asset[column], "cat")]
        else:
            parts += [str(asset.tolist())]
    return "\n".join(parts)


def test_a_synthetic_mock_has_the_columns_and_types_and_nothing_of_the_values() -> None:
    """A hundred rows, whatever the data has."""
    mock: Any = mocks.synthetic({"x": FRAME}, "x", 100)["x"]
    assert list(FRAME.columns) == list(mock.columns)
    plain = [column for column in FRAME if column != "kind"]
    assert [str(FRAME[column].dtype) for column in plain] == [str(mock[column].dtype) for column in plain]
    assert ("category", True) == (str(mock["kind"].dtype), mock["kind"].cat.ordered)
    assert 100 == len(mock)
    assert [] == [secret for secret in SECRETS if secret in shown({"x": mock})]


def test_a_synthetic_mock_knows_only_names_and_types() -> None:
    """Other values under the same names and types: the same mock, to the last bit."""
    other = FRAME.assign(
        torque=[1.0, 2.0, 3.0], machine=["a", "b", "c"], kind=pd.Categorical(["z", "y", "x"], ordered=True)
    )
    assert shown(mocks.synthetic({"x": FRAME}, "x", 100)) == shown(mocks.synthetic({"x": other[:2]}, "x", 100))


def test_the_number_of_rows_is_told_only_where_the_owner_asks_for_it() -> None:
    """``rows: same``; an empty mock has none."""
    content: files.Content = {"x": FRAME}
    assert [3, 7, 0] == [len(mocks.synthetic(content, "x", rows)["x"]) for rows in (None, 7, 0)]


def test_a_mock_of_arrays() -> None:
    """All lengths but the first are the data's; the width of texts is not."""
    content: files.Content = {
        "x": np.full((5, 3, 2), 31337.5, dtype=np.float32),
        "n": np.full(5, 31337, dtype=np.int16),
        "label": np.array(["SECRET-LABEL-OF-SOME-LENGTH"] * 5),
        "ok": np.ones(5, dtype=bool),
        "one": np.array(31337.0),
    }
    mock = mocks.synthetic(content, "wear", 4)
    assert {"x": (4, 3, 2), "n": (4,), "label": (4,), "ok": (4,), "one": ()} == {n: a.shape for n, a in mock.items()}
    kinds = {"x": "float32", "n": "int16", "label": "<U8", "ok": "bool", "one": "float64"}
    assert kinds == {name: str(array.dtype) for name, array in mock.items()}
    assert [] == [secret for secret in SECRETS if secret in shown(mock)]
    assert (0, 3, 2) == mocks.synthetic({"x": content["x"]}, "wear", 0)["x"].shape


def test_an_owners_own_mock_has_to_fit() -> None:
    """The same columns, or the same arrays with as many dimensions."""
    frame: files.Content = {"x": FRAME[["torque", "count"]]}
    fits: files.Content = {"x": pd.DataFrame({"torque": [1.0], "count": [2]})}
    assert fits is mocks.own(frame, fits)
    arrays: files.Content = {"x": np.zeros((2, 2))}
    for data, mock in (
        (frame, {"x": pd.DataFrame({"torque": [1.0]})}),
        (arrays, {"y": np.zeros((2, 2))}),
        (arrays, {"x": np.zeros(2)}),
    ):
        with pytest.raises(Unusable):
            mocks.own(data, mock)
