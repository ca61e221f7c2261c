"""Which variables go from the supervisor to what it starts, and what a process shows of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from supervisor.policy.surroundings import passed_on

ROOT = Path(__file__).parents[2]
NEEDED = [
    *("PATH", "HOME", "LANG", "LC_ALL", "LC_TIME", "TZ", "TMPDIR", "PYTHONPATH", "PYTHONFAULTHANDLER"),
    *("CUDA_VISIBLE_DEVICES", "CUDA_CACHE_PATH", "NVIDIA_VISIBLE_DEVICES", "LD_LIBRARY_PATH", "TRITON_CACHE_DIR"),
    *(
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "MKL_NUM_THREADS",
        "PYTORCH_CUDA_ALLOC_CONF",
        "HSA_OVERRIDE_GFX_VERSION",
    ),
    *("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "https_proxy", "HTTPS_PROXY", "no_proxy"),
]
SECRETS = [
    *(
        "FLEET_ADMIN_PASSWORD",
        "FLEET_LEASH",
        "AWS_SECRET_ACCESS_KEY",
        "GITHUB_TOKEN",
        "PLANT_DATABASE",
        "NVIDIA_API_KEY",
    ),
    *("CUDA_API_KEY", "TORCH_HUB_TOKEN", "LC_PASSWORD", "PYTHON_SECRET", "PATH_TO_KEY", "SSLKEYLOGFILE"),
    *("NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY", "SSH_AUTH_SOCK", "path", ""),
]


def test_what_is_needed_is_passed_on() -> None:
    """Where programs and certificates are, how to compute, how to reach the centre."""
    assert frozenset(NEEDED) == passed_on(NEEDED)


@pytest.mark.parametrize("name", SECRETS)
def test_what_is_not_known_is_not(name: str) -> None:
    """A name of a known family does not help what looks like a secret."""
    assert frozenset() == passed_on([name])


PROGRAM = """
import ctypes, os, subprocess
from fleet_common import secrecy
secrecy.leave_no_core()
secrecy.wipe_environment({"PATH", "KEPT"})
child = subprocess.run(["env"], capture_output=True, text=True).stdout
getenv = ctypes.CDLL(None).getenv
getenv.restype = ctypes.c_char_p
print(dict(os.environ), child, open("/proc/self/environ").read(), getenv(b"KEPT"), getenv(b"SECRET"))
print("core", open("/proc/self/coredump_filter").read(), open("/proc/self/limits").read())
"""


@pytest.mark.process
def test_what_was_wiped_is_nowhere_to_be_read() -> None:
    """Not by the process, its children or the kernel; and what was kept is still there for the C library."""
    environ = {"PATH": os.environ["PATH"], "KEPT": "kept-value", "SECRET": "wiped-value", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    assert (False, 4) == ("wiped-value" in done.stdout, done.stdout.count("kept-value")), done.stdout
    limits = done.stdout.split("Max core file size")[1].split()[:2]
    assert (["0", "0"], "00000000") == (limits, done.stdout.split("core ")[1].split()[0])
