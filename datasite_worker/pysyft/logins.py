"""Checks logins in separate threads, with the same work and the same answer whether or not the user exists.

A password costs a quarter of a second of bcrypt. PySyft checks it in the threads that answer everybody, and answers
at once, with another text, when no user has the e-mail.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import bcrypt
from syft.service.response import SyftError
from syft.service.user.user import User, UserPrivateKey

REFUSED = "Invalid credentials: there is no such user, or the password is wrong."
THREADS = 2
MOST_WAITING = 256
"""How many logins may wait for a thread. Further ones must try again later."""
_LONGEST = 72
"""Bytes of a password that bcrypt looks at."""
_NOBODY = bcrypt.hashpw(bcrypt.gensalt(12), bcrypt.gensalt(12)).decode()
"""Checked where nobody has the e-mail. Its password is not known, and its cost is that of PySyft's own."""


class Busy(Exception):
    """Too many logins wait already."""


class Logins:
    """Checks logins at PySyft's ``server``. Waits in its own threads, which end with the process."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._threads = ThreadPoolExecutor(THREADS, "login")
        self._waiting = 0
        root = server.services.user.stash.get_by_verify_key(server.verify_key, server.verify_key)
        self._root = root.unwrap().email

    async def check(self, email: str, password: str) -> UserPrivateKey | SyftError:
        """The user's key, or a refusal. Raises Busy."""
        if self._waiting >= MOST_WAITING:
            raise Busy
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._check, email, password)
        finally:
            self._waiting -= 1

    def _check(self, email: str, password: str) -> UserPrivateKey | SyftError:
        user = self._user(email)
        fits = _fits(password, user.hashed_password if user is not None else _NOBODY)
        if user is None or not fits:
            return SyftError(message=REFUSED)
        return user.to(UserPrivateKey)

    def _user(self, email: str) -> User | None:
        """Queries twice and reads one row in either case: the datasite's root user if no user has the e-mail."""
        users, key = self._server.services.user.stash, self._server.verify_key
        found = users.get_all(key, filters={"email": email}, limit=1).unwrap()
        users.get_all(key, filters={"email": f"{email} " if found else self._root}, limit=1).unwrap()
        return found[0] if found else None


def _fits(password: str, hashed: str) -> bool:
    try:
        return bcrypt.checkpw(password.encode(errors="replace")[:_LONGEST], hashed.encode())
    except ValueError:  # bcrypt takes no NUL
        return False
