"""Reads one scalar of ``fleet.yaml`` as one Python value. Pure; each reader raises ``Wrong`` with what it expected.

A message shows the value only when the file itself contains it and the key is not a secret.
"""

from __future__ import annotations

import ipaddress
import math
import re
import unicodedata
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlsplit

from email_validator import EmailNotValidError, validate_email

from supervisor.config.tree import Kind, Mapping, Scalar, Tree
from supervisor.spec import DASHBOARD_NAME

T = TypeVar("T")

LONGEST = 7 * 86400.0
"""Seconds. A longer wait is a mistake, and poll(2) cannot wait much longer."""

RESERVED_NAMES = (DASHBOARD_NAME, "fleet")
"""The names of the supervisor's own processes and logs."""

NAME_RULE = "a-z, 0-9, - and _, beginning with a letter or digit, at most 63 characters"

_WELL_KNOWN = frozenset(
    (  # noqa: SIM905 - forty quoted words would be harder to read
        "changethis changeme changeme1 changeit password password1 password12 password123 passw0rd p@ssw0rd "
        "admin admin123 admin1234 administrator adminadmin rootroot 12345678 123456789 1234567890 11111111 "
        "qwertyui qwertyuiop qwerty123 asdfghjk iloveyou letmein1 letmeinplease welcome1 welcome123 trustno1 "
        "sunshine baseball football openmined openmined1 fleetadmin datasite secret123 secretpassword default1 "
        "testtest test1234 testpassword adminpassword pdm-factory pdmfactory"
    ).split()
)


class Wrong(ValueError):
    """What was expected. ``node``: where, if not at the value being read. ``key``: the key in it."""

    def __init__(self, message: str, node: Tree | None = None, key: str = "") -> None:
        super().__init__(message)
        self.node = node
        self.key = key


class Reported(ValueError):
    """The value is wrong, and that is already reported."""


def scalar(value: Any, expected: str) -> Scalar:
    """``value`` as a readable scalar. Raises Wrong for a mapping, a list or an empty value, Reported if broken."""
    if not isinstance(value, Scalar):
        raise Wrong(f"expected {expected}, not a {'mapping' if isinstance(value, dict | Mapping) else 'list'}")
    if value.broken:
        raise Reported
    if value.absent:
        raise Wrong(f"expected {expected}, not an empty value", value)
    return value


def shown(value: Scalar) -> str:
    """``, not 'abc'`` where the value may be shown, else nothing."""
    if value.interpolated or len(value.text) > 40 or ("://" in value.text and "@" in value.text):
        return ""
    return f", not {value.text!r}" if value.quoted or value.kind is Kind.TEXT else f", not {value.text}"


def text(value: Any, expected: str = "text") -> str:
    """A line of text. Accepts numbers and dates as written, but no word that YAML reads as true or false."""
    read = scalar(value, expected)
    if read.kind is Kind.BOOL:
        meaning = "true" if _is_true(read.text) else "false"
        pitfall = f'YAML reads {read.text} as {meaning}; put it in quotes: "{read.text}"'
        raise Wrong(f"expected {expected}; {pitfall}", read)
    if not read.text.strip():
        raise Wrong(f"expected {expected}, not an empty value", read)
    if not read.text.isprintable():
        raise Wrong(f"expected {expected} on one line, without control characters", read)
    return read.text


def environment_value(value: Any) -> str:
    """The value as written: ``on`` stays ``on``. An empty value needs quotes."""
    if isinstance(value, Scalar) and value.blank:
        return ""
    read = scalar(value, 'text ("" for an empty value)')
    if "\0" in read.text:
        raise Wrong("expected text without NUL characters", read)
    return read.text


def boolean(value: Any) -> bool:
    read = scalar(value, "true or false")
    word = read.text.strip().lower()
    if read.kind is Kind.BOOL or (read.interpolated and word in {*_TRUE, "1", "false", "no", "off", "0"}):
        return _is_true(word) or word == "1"
    raise Wrong(f"expected true or false{shown(read)}{_unquote(read)}", read)


_TRUE = ("true", "yes", "on")


def _is_true(word: str) -> bool:
    return word.lower() in _TRUE


def whole(low: int, high: int, what: str = "") -> Callable[[Any], int]:
    """A reader of whole numbers from ``low`` to ``high``."""
    expected = f"{what or 'a whole number'}, {f'{low} to {high}' if low < high else low}"

    def read(value: Any) -> int:
        source = _number_source(value, expected)
        digits = source.text.strip()
        if not re.fullmatch(r"[-+]?[0-9]{1,20}", digits) or not low <= int(digits) <= high:
            raise Wrong(f"expected {expected}{shown(source)}{_unquote(source)}", source)
        return int(digits)

    return read


def number(low: float, high: float, what: str = "a number") -> Callable[[Any], float]:
    """A reader of finite numbers from ``low`` to ``high``."""
    expected = f"{what}, {low:g} to {high:g}" if math.isfinite(high) else f"{what}, {low:g} or more"

    def read(value: Any) -> float:
        source = _number_source(value, expected)
        found = _float(source.text)
        if found is None or not low <= found <= high:
            raise Wrong(f"expected {expected}{shown(source)}{_unquote(source)}", source)
        return found

    return read


def duration(low: float, *, over: bool = False) -> Callable[[Any], float]:
    """A reader of times: seconds, or with units. ``over``: ``low`` itself is not allowed."""
    bound = f"more than {low:g}" if over else f"{low:g} or more"
    expected = f"a time of {bound} and at most 7d, in seconds or such as 500ms, 30s, 5m, 2h"

    def read(value: Any) -> float:
        source = _number_source(value, expected)
        seconds = _float(source.text)
        seconds = _sum_of_units(source.text, _SECONDS) if seconds is None else seconds
        if seconds is None or not low <= seconds <= LONGEST or (over and seconds == low):
            raise Wrong(f"expected {expected}{shown(source)}", source)
        return seconds

    return read


def size(value: Any) -> int:
    """Bytes, as a number or with a unit."""
    expected = "a size, in bytes or such as 512MiB, 8GiB, 10GB"
    source = _number_source(value, expected)
    found = _float(source.text)
    found = _sum_of_units(source.text, _BYTES) if found is None else found
    if found is None or not 0 <= found < 2**60:
        raise Wrong(f"expected {expected}{shown(source)}", source)
    return round(found)


_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_BYTES = {"B": 1.0} | {f"{p}B": 1000.0**n for n, p in enumerate("kMGT", 1)} | {"KB": 1000.0}
_BYTES |= {f"{prefix}iB": 1024.0**n for n, prefix in enumerate("KMGT", 1)}


def _sum_of_units(written: str, units: dict[str, float]) -> float | None:
    """The value of ``1h30m`` with the units of time; None when ``written`` is not a sum of ``units``."""
    parts = re.findall(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)", written.strip()[:60])
    if "".join(f"{amount}{unit}" for amount, unit in parts) != written.replace(" ", "") or not parts:
        return None
    if any(unit not in units for _, unit in parts):
        return None
    return sum(float(amount) * units[unit] for amount, unit in parts)


def _float(written: str) -> float | None:
    if not re.fullmatch(r"[-+]?([0-9]{1,20}\.?[0-9]{0,20}|\.[0-9]{1,20})([eE][-+]?[0-9]{1,2})?", written.strip()):
        return None
    return float(written)


def _number_source(value: Any, expected: str) -> Scalar:
    """The scalar, unless YAML 1.1 reads it as another number than people do: 0777 as 511, and 1:30 as 90."""
    read = scalar(value, expected)
    written = read.text
    if read.interpolated:
        return read
    if re.fullmatch(r"[-+]?0[0-9]+", written):
        raise Wrong(f"expected {expected}; remove the leading 0 of {written}, which means octal in YAML", read)
    if read.kind in (Kind.INT, Kind.FLOAT) and re.search(r"[:_xb]", written):
        raise Wrong(f"expected {expected}, in plain decimal digits{shown(read)}", read)
    return read if not read.quoted or _float(written) is None else _refuse_quoted(read, expected)


def _refuse_quoted(read: Scalar, expected: str) -> Scalar:
    raise Wrong(f"expected {expected}{_unquote(read)}", read)


def _unquote(read: Scalar) -> str:
    return "; remove the quotes" if read.quoted and not read.interpolated else ""


def choice(options: tuple[str, ...]) -> Callable[[Any], str]:
    """A reader of one of ``options``."""
    expected = " or ".join(options) if len(options) < 3 else f"one of {', '.join(options)}"

    def read(value: Any) -> str:
        source = scalar(value, expected)
        if source.text not in options:
            raise Wrong(f"expected {expected}{shown(source)}", source)
        return source.text

    return read


def embedded(value: Any) -> str:
    """The only word that ``dashboard`` takes."""
    expected = "embedded (for another dashboard, remove this key and set dashboard_url)"
    read = scalar(value, expected)
    if read.text != "embedded":
        raise Wrong(f"expected {expected}{shown(read)}", read)
    return read.text


def name(value: Any) -> str:
    """A datasite's name. It is also used as a file name, a process title and a host name."""
    expected = f"a name of {NAME_RULE}"
    read = text(value, expected)
    if read in RESERVED_NAMES:
        raise Wrong(f"fleet itself uses the name {read}; choose another", value)
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,62}", read):
        raise Wrong(f"expected {expected}{shown(value)}{_better_name(value)}", value)
    return read


def _better_name(value: Scalar) -> str:
    if value.interpolated:
        return ""
    plain = unicodedata.normalize("NFKD", value.text).encode("ascii", "ignore").decode().lower()
    better = re.sub(r"[^a-z0-9_-]+", "_", plain).strip("_-")[:63]
    return f"; write {better}" if better and better not in RESERVED_NAMES else ""


def optional_text(value: Any) -> str:
    """A line of text, or empty quotes."""
    if isinstance(value, Scalar) and value.quoted and not value.text:
        return ""
    return text(value)


def code_hash(value: Any) -> str:
    """``sha256:`` and 64 hexadecimal digits, in lower case."""
    expected = "the SHA-256 of a function's source, written as sha256: and 64 hexadecimal digits"
    read = text(value, expected).lower()
    if not re.fullmatch(r"sha256:[0-9a-f]{64}", read):
        raise Wrong(f"expected {expected}{shown(value)}", value)
    return read


def moment(value: Any) -> str:
    """A day or a time, as ISO 8601 with offset. A day means its end. Without an offset, it is the machine's time."""
    expected = "a day such as 2027-03-31, or a time such as 2027-03-31T18:00"
    read = scalar(value, expected)
    try:
        found = datetime.fromisoformat(read.text.strip())
    except ValueError:
        raise Wrong(f"expected {expected}{shown(read)}", read) from None
    if len(read.text.strip()) <= len("2027-03-31"):
        found += timedelta(days=1)
    return found.astimezone().isoformat() if found.tzinfo is None else found.isoformat()


def setting(value: Any) -> str | float | bool:
    """A value of a function's configuration: a number, true or false, or text."""
    read = scalar(value, "a number, true or false, or text")
    if read.kind is Kind.BOOL:
        return _is_true(read.text)
    number_read = None if read.quoted else _float(read.text)
    if number_read is None:
        return text(value)
    return int(number_read) if number_read.is_integer() else number_read


def folder(value: Any) -> str:
    expected = "a folder, relative to fleet.yaml or absolute"
    read = text(value, expected)
    if read.startswith("~"):
        raise Wrong(f"expected {expected}; ~ is not expanded, write ${{env:HOME}}/…", value)
    return read


DATA_FILES = (".csv", ".parquet", ".npz")
"""The endings of the files that a dataset can consist of."""

_DATASET_NAME = "a name of letters, digits, spaces and . _ -, beginning with a letter or digit, at most 64 characters"


def dataset_name(value: Any) -> str:
    """A dataset's name. Logs and everybody who may log in see it."""
    read = text(value, _DATASET_NAME)
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9._-])?", read):
        raise Wrong(f"expected {_DATASET_NAME}{shown(value)}", value)
    return read


def data_file(value: Any) -> str:
    expected = "a .csv, .parquet or .npz file, relative to fleet.yaml or absolute"
    read = text(value, expected)
    if not read.lower().endswith(DATA_FILES):
        raise Wrong(f"expected {expected}{shown(value)}", value)
    if read.startswith("~"):
        raise Wrong(f"expected {expected}; ~ is not expanded, write ${{env:HOME}}/…", value)
    return read


def mock_rows(value: Any) -> int | None:
    """How many rows a synthetic mock has; None for as many as the data."""
    expected = "a whole number, 1 to 100000, or same (as many rows as the data)"
    if isinstance(value, Scalar) and value.text == "same":
        return None
    try:
        return whole(1, 100_000)(value)
    except Wrong as wrong:
        raise Wrong(str(wrong).replace("a whole number, 1 to 100000", expected), wrong.node) from None


def host(value: Any) -> str:
    """A host name or an IP address for bind(2)."""
    expected = "a host name or an IP address, without scheme or port"
    read = text(value, expected)
    if not is_host(read):
        raise Wrong(f"expected {expected}{shown(value)}", value)
    return read


def reachable_host(value: Any) -> str:
    """A host that others can connect to."""
    read = host(value)
    if is_wildcard(read):
        raise Wrong(f"expected a host name or address at which others reach this machine, not {read}", value)
    return read


def is_host(word: str) -> bool:
    if _address(word) is not None:
        return True
    labels = word.removesuffix(".").split(".")
    # If the last label is all digits, it is a mistyped IPv4 address: no host name ends like that.
    fit = all(re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?", label) for label in labels)
    return fit and len(word) <= 253 and not labels[-1].isdecimal()


def is_wildcard(word: str) -> bool:
    """Whether a server bound to it listens on every address of the machine."""
    address = _address(word)
    return address is not None and address.is_unspecified


def is_loopback(word: str) -> bool:
    address = _address(word)
    return address.is_loopback if address is not None else word.lower().removesuffix(".") == "localhost"


def _address(word: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(word)
    except ValueError:
        return None


def url(value: Any) -> str:
    """A base URL, without the final slash. Messages do not show it: people write passwords into URLs."""
    expected = "a URL such as https://central.example.com:5000"
    read = text(value, expected)
    if complaint := _url_complaint(read):
        raise Wrong(f"expected {expected}; {complaint}", value)
    return read.rstrip("/")


def webhook(value: Any) -> str:
    """A URL as written. It keeps the query and the final slash, which chat services use."""
    expected = "a URL such as https://hooks.example.com/alerts?key=…"
    read = text(value, expected)
    if complaint := _url_complaint(read.partition("?")[0]) or ("#" in read and "remove the # and what follows"):
        raise Wrong(f"expected {expected}; {complaint}", value)
    if any(sign.isspace() for sign in read):
        raise Wrong(f"expected {expected}; it cannot contain spaces", value)
    return read


def _url_complaint(written: str) -> str:
    try:
        parts = urlsplit(written)
        port, hostname = parts.port, parts.hostname or ""
    except ValueError:
        return "the host or the port (1 to 65535) is not valid"
    complaints = {
        "it must begin with http:// or https://": parts.scheme not in ("http", "https") or "//" not in written,
        "remove the user and password": "@" in parts.netloc,
        "the host is missing or not valid": not is_host(hostname),
        "the port must be 1 to 65535": port == 0 or parts.netloc.endswith(":"),
        "remove the ? or # and what follows": "?" in written or "#" in written,
        "it cannot contain spaces": any(sign.isspace() for sign in written),
    }
    return next((complaint for complaint, holds in complaints.items() if holds), "")


def email(value: Any) -> str:
    """An e-mail address. PySyft checks with the same library, so it accepts what passes here."""
    expected = "an e-mail address such as admin@pdm-factory.com"
    read = text(value, expected)
    try:
        return validate_email(read, check_deliverability=False).normalized
    except EmailNotValidError as error:
        reason = "" if value.interpolated else f": {str(error).rstrip('.')}"
        raise Wrong(f"expected {expected}{shown(value)}{reason}", value) from None


def password(value: Any) -> str:
    """A password that is not short, not common and not longer than bcrypt's 72 bytes, which drops the rest."""
    read = scalar(value, "a password")
    if len(read.text) < 8:
        raise Wrong(f"expected a password of at least 8 characters; {_PASSWORD_STEP}", read)
    if read.text.lower() in _WELL_KNOWN or len(set(read.text)) < 3:
        raise Wrong(f"this password is too common; {_PASSWORD_STEP}", read)
    if len(read.text.encode()) > 72 or not read.text.isprintable():
        raise Wrong("expected a password on one line, of at most 72 bytes; PySyft's hash ignores the rest", read)
    return read.text


_PASSWORD_STEP = "without this key, fleet generates a strong one"  # noqa: S105 - a hint


_DEVICE = "a GPU's index (0, 1, …) or UUID (GPU-…, as nvidia-smi -L prints it)"


def device(value: Any) -> str:
    """One GPU: its index, or its UUID as ``nvidia-smi -L`` prints it."""
    return _device(scalar(value, _DEVICE), _DEVICE)


def gpu_word(value: Any) -> str:
    """``auto``, ``none`` or one GPU."""
    expected = f"auto, none or {_DEVICE}"
    read = scalar(value, expected)
    if read.kind is Kind.BOOL and not _is_true(read.text):
        raise Wrong(f"expected {expected}; YAML reads {read.text} as false, write none", read)
    return read.text if read.text in ("auto", "none") else _device(read, expected)


def _device(read: Scalar, expected: str) -> str:
    index = read.kind is Kind.INT or read.interpolated
    if index and re.fullmatch(r"0|[1-9][0-9]{0,2}", read.text):
        return read.text
    if re.fullmatch(r"(GPU|MIG|MIG-GPU)-[0-9A-Fa-f][0-9A-Fa-f/-]{3,79}", read.text):
        return read.text
    raise Wrong(f"expected {expected}{shown(read)}{_unquote(read)}", read)
