"""Checks that folders can be trusted, and opens and replaces files in them. For supervisor, datasite and centre.

Like sshd's StrictModes: whoever can write to one folder of a path decides where the path leads. So every folder on it
must belong to us or to root, and nobody else may write to it. A folder with the sticky bit, such as /tmp, is allowed:
others cannot rename or remove our files there. A link on the way is followed only if we or root own it. No link is
followed to a file that we write.

Standard library only. It changes the mode only of our own folders and files that we are about to use.
"""

from __future__ import annotations

import contextlib
import grp
import io
import logging
import os
import pwd
import shlex
import stat
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler, WatchedFileHandler
from pathlib import Path
from typing import Any, BinaryIO

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600
_FOR_OTHERS, _ANY_OTHER = 0o022, 0o077
_STEP = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MOST_LINKS = 40  # as the kernel
_KINDS = (stat.S_ISREG, stat.S_ISDIR, stat.S_ISSOCK)


class Unsafe(PermissionError):
    """Another user can change this path. ``reason`` says what is wrong, ``next_step`` how to fix it."""

    def __init__(self, reason: str, next_step: str) -> None:
        super().__init__(f"{reason}; next step: {next_step}")
        self.reason = reason
        self.next_step = next_step


# --- folders ---


def check(folder: Path, *, make: bool = False) -> None:
    """Raises Unsafe unless the whole path is ours or root's, and FileNotFoundError unless ``make`` (mode 0700) is
    set."""
    os.close(_walk(folder, make=make, last=True))


def make(folder: Path) -> None:
    """Ensure that ``folder`` exists, is ours and private, and is not a link. Raises Unsafe.

    Takes write permission from others if only we can enter the parent folder: an earlier release left such folders."""
    parent = _walk(folder.parent, make=True)
    try:
        sheltered = not stat.S_IMODE(os.fstat(parent).st_mode) & _ANY_OTHER
        with _named(folder):
            _make_missing(parent, folder.name)
            _refuse_link(parent, folder)
            made = os.open(folder.name, _FOLDER, dir_fd=parent)
    finally:
        os.close(parent)
    try:
        _take_back(made, folder, sheltered=sheltered)
    finally:
        os.close(made)


def _take_back(made: int, folder: Path, *, sheltered: bool) -> None:
    state = os.fstat(made)
    ours = state.st_uid == os.geteuid()
    if not (ours and sheltered):
        _judge(made, folder, last=True)
    if ours and stat.S_IMODE(state.st_mode) != PRIVATE_FOLDER:
        os.fchmod(made, PRIVATE_FOLDER)


def check_inside(folder: Path) -> None:
    """Raises Unsafe when an entry of ``folder`` is a link, another user's, or not a folder, file or socket. Does not
    check subfolders."""
    way = _walk(folder)
    try:
        inside = os.open(".", _FOLDER, dir_fd=way)
    finally:
        os.close(way)
    try:
        for name in sorted(os.listdir(inside)):  # noqa: PTH208 - a descriptor is no path
            _check_entry(os.stat(name, dir_fd=inside, follow_symlinks=False), folder / name)
    finally:
        os.close(inside)


def _walk(path: Path, *, make: bool = False, last: bool = False) -> int:
    """A descriptor (O_PATH) of the folder ``path``; each step is checked. ``last``: it is to contain our files, so
    a sticky bit is not enough."""
    return _Walk(path).to_its_end(make=make, last=last)


class _Walk:
    """Walks down a path, and checks each folder before the next step."""

    def __init__(self, path: Path) -> None:
        self._waiting = deque(path.absolute().parts[1:])
        self._links = 0
        self._here = Path("/")
        self._fd = os.open("/", _STEP)

    def to_its_end(self, *, make: bool, last: bool) -> int:
        try:
            while self._waiting:
                _judge(self._fd, self._here)
                self._step(self._waiting.popleft(), make=make)
            _judge(self._fd, self._here, last=last)
        except BaseException:
            os.close(self._fd)
            raise
        return self._fd

    def _step(self, name: str, *, make: bool) -> None:
        there = self._here / name if name != ".." else self._here.parent
        with _named(there):
            if make:
                _make_missing(self._fd, name)
            target = _target(self._fd, name, there)
            if target is None:
                self._enter(name, there)
            else:
                self._follow(target, there)

    def _enter(self, name: str, there: Path) -> None:
        fd = os.open(name, _STEP, dir_fd=self._fd)
        os.close(self._fd)
        self._fd, self._here = fd, there

    def _follow(self, target: Path, link: Path) -> None:
        self._links += 1
        if self._links > _MOST_LINKS:
            raise Unsafe(f"{link} leads through too many symbolic links", _after_a_look(link))
        self._waiting.extendleft(reversed(target.parts[target.is_absolute() :]))
        if target.is_absolute():
            self._enter("/", Path("/"))


def _target(fd: int, name: str, there: Path) -> Path | None:
    """The target of the link ``name``; None if it is not a link."""
    state = os.stat(name, dir_fd=fd, follow_symlinks=False)
    if not stat.S_ISLNK(state.st_mode):
        return None
    if state.st_uid not in _trusted():
        raise Unsafe(f"the symbolic link {there} belongs to {_user(state.st_uid)}", _after_a_look(there))
    return Path(os.readlink(name, dir_fd=fd))


def _make_missing(fd: int, name: str) -> None:
    try:
        os.stat(name, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        with contextlib.suppress(FileExistsError):
            os.mkdir(name, PRIVATE_FOLDER, dir_fd=fd)


def _judge(fd: int, folder: Path, *, last: bool = False) -> None:
    state = os.fstat(fd)
    if state.st_uid not in _trusted():
        raise Unsafe(
            f"the folder {folder} belongs to {_user(state.st_uid)}, not to {_user(os.geteuid())} or root",
            f"run as {_user(state.st_uid)}, or chown {_user(os.geteuid())} {_quoted(folder)}",
        )
    mode = stat.S_IMODE(state.st_mode)
    others = mode & (stat.S_IWOTH if _is_private(state) else _FOR_OTHERS)
    if others and not (mode & stat.S_ISVTX and not last):
        whom = "everybody" if mode & stat.S_IWOTH else "a group"
        way_out = "use a folder of your own" if mode & stat.S_ISVTX else f"chmod g-w,o-w {_quoted(folder)}"
        raise Unsafe(f"{whom} may write the folder {folder} (owner {_user(state.st_uid)}, mode {mode:04o})", way_out)


def _is_private(state: os.stat_result) -> bool:
    """Whether the group is the owner's private group, as on many distributions (with umask 002): it has the owner's
    name, is the owner's first group, and has no other member."""
    try:
        owner, group = pwd.getpwuid(state.st_uid), grp.getgrgid(state.st_gid)
    except KeyError:
        return False
    named_alike = owner.pw_gid == group.gr_gid and owner.pw_name == group.gr_name
    return named_alike and set(group.gr_mem) <= {owner.pw_name}


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Make errors name the whole path: calls with a descriptor name only the last part."""
    try:
        yield
    except Unsafe:
        raise
    except OSError as error:
        error.filename = str(path)
        raise


# --- files ---


def open_file(path: Path, flags: int) -> int:
    """A descriptor of a regular file that is ours or root's, in trusted folders. If it is ours, its mode
    becomes 0600. Raises Unsafe, or what os.open raises."""
    folder = _walk(path.parent)
    try:
        with _named(path):
            _refuse_link(folder, path)
            # Without waiting: if it were a pipe, opening it would never end.
            fd = os.open(path.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, PRIVATE_FILE, dir_fd=folder)
    finally:
        os.close(folder)
    try:
        _settle(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _settle(fd: int, path: Path) -> None:
    state = os.fstat(fd)
    _check_entry(state, path)
    if not stat.S_ISREG(state.st_mode):
        raise Unsafe(f"{path} is not a regular file", _after_a_look(path))
    if state.st_nlink > 1:
        raise Unsafe(f"{path} has a second name (a hard link)", _after_a_look(path))
    if stat.S_IMODE(state.st_mode) != PRIVATE_FILE and state.st_uid == os.geteuid():
        os.fchmod(fd, PRIVATE_FILE)
    os.set_blocking(fd, True)


def read(path: Path) -> bytes:
    with open(open_file(path, os.O_RDONLY), "rb") as file:
        return file.read()


def read_text(path: Path) -> str:
    return read(path).decode()


@contextmanager
def durable(path: Path, *, mode: int = PRIVATE_FILE, lasting: bool = True) -> Iterator[BinaryIO]:
    """Replace ``path``: readers see either the old file or the complete new one. If ``lasting``, that also holds after
    a power cut. An existing link is replaced, not followed.

    ``mode`` is subject to the umask. Raises OSError, and then leaves the old file as it was.
    """
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    part = f"{path.name}.part"
    try:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(part, dir_fd=folder)
        new = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode, dir_fd=folder)
        with _gone_at_failure(part, folder):
            with open(new, "wb") as file:
                yield file
                file.flush()
                if lasting:
                    os.fsync(new)
            os.rename(part, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        if lasting:
            os.fsync(folder)
    finally:
        os.close(folder)


@contextmanager
def _gone_at_failure(part: str, folder: int) -> Iterator[None]:
    """What was begun takes no room on a disk that is full."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part, dir_fd=folder)
        raise


def write_text(path: Path, text: str, *, mode: int = PRIVATE_FILE, lasting: bool = True) -> None:
    """``durable``, of a text."""
    with durable(path, mode=mode, lasting=lasting) as file:
        file.write(text.encode())


def make_way(path: Path) -> None:
    """Remove a socket of ours from ``path``. Raises Unsafe when something else is there."""
    folder = _walk(path.parent)
    try:
        state = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        _check_entry(state, path)
        if not stat.S_ISSOCK(state.st_mode):
            raise Unsafe(f"{path} is not a socket", _after_a_look(path))
        os.unlink(path.name, dir_fd=folder)
    except FileNotFoundError:
        return
    finally:
        os.close(folder)


def _refuse_link(folder: int, path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        _check_entry(os.stat(path.name, dir_fd=folder, follow_symlinks=False), path)


def _check_entry(state: os.stat_result, path: Path) -> None:
    if stat.S_ISLNK(state.st_mode):
        raise Unsafe(f"{path} is a symbolic link, and links are not followed here", _after_a_look(path))
    if state.st_uid not in _trusted():
        raise Unsafe(
            f"{path} belongs to {_user(state.st_uid)}, not to {_user(os.geteuid())} or root",
            f"{_after_a_look(path)}; or chown {_user(os.geteuid())} {_quoted(path)}",
        )
    if not any(is_kind(state.st_mode) for is_kind in _KINDS):
        raise Unsafe(f"{path} is not a file, folder or socket", _after_a_look(path))


def _trusted() -> set[int]:
    return {0, os.geteuid()}


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"


def _after_a_look(path: Path) -> str:
    return f"find out who made it (ls -l {_quoted(path)}), then rm {_quoted(path)}"


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


# --- logs ---


def appended(path: Path) -> BinaryIO:
    """``path``, open for appending, mode 0600. Its folder is made if absent. Raises Unsafe, or OSError."""
    check(path.parent, make=True)
    return open(open_file(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT), "ab")


class _Appended:
    """A logging handler that opens its file as this module does."""

    baseFilename: str  # noqa: N815 - logging's name
    encoding: str | None

    def _open(self) -> Any:
        return io.TextIOWrapper(appended(Path(self.baseFilename)), encoding=self.encoding, errors="backslashreplace")


class RotatingLog(_Appended, RotatingFileHandler):
    """A rotating log. It makes files from earlier rotations private too, and its own again where somebody has removed
    it."""

    def __init__(self, path: Path, *, size: int, backups: int, delay: bool = False) -> None:
        super().__init__(path, maxBytes=size, backupCount=backups, encoding="utf-8", delay=delay)
        for number in range(1, backups + 1):
            keep_private(path.with_name(f"{path.name}.{number}"))

    def emit(self, record: logging.LogRecord) -> None:
        if self.stream is not None and self._is_gone():  # type: ignore[redundant-expr]  # None until the first line
            stream, self.stream = self.stream, None  # type: ignore[assignment]  # as FileHandler.close has it
            with contextlib.suppress(OSError):
                stream.close()
        super().emit(record)

    def _is_gone(self) -> bool:
        try:
            return not os.path.samestat(Path(self.baseFilename).stat(), os.fstat(self.stream.fileno()))
        except OSError:
            return True


class FollowedLog(_Appended, WatchedFileHandler):
    """A log for a process that writes to a file that another one rotates."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:
            self.handleError(record)


def keep_private(path: Path) -> None:
    """Remove other users' permissions on ``path``, if it exists and is ours."""
    try:
        os.close(open_file(path, os.O_RDONLY))
    except Unsafe:
        raise
    except OSError:
        return
