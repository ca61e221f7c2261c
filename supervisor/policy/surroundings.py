"""Which variables of the supervisor's environment the processes that it starts get to see. Pure.

An operator's environment holds secrets: what ``${env:NAME}`` in fleet.yaml names, and whatever else a shell or a
service was given. So nothing is passed on but what is known to be needed. What else a datasite needs, its
``environment:`` says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_NAMES = frozenset(
    {
        *("PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "TZ", "TZDIR", "TMPDIR", "TMP", "TEMP"),
        *("TERM", "COLORTERM", "COLUMNS", "LINES", "NO_COLOR"),
        *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR", "MPLCONFIGDIR", "MPLBACKEND"),
        *("LD_LIBRARY_PATH", "LD_PRELOAD", "GLIBC_TUNABLES", "VIRTUAL_ENV", "CONDA_PREFIX"),
        *("PYTHONPATH", "PYTHONHOME", "PYTHONSAFEPATH", "PYTHONNOUSERSITE", "PYTHONUSERBASE"),
        *("PYTHONFAULTHANDLER", "PYTHONHASHSEED", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX", "PYTHONUTF8"),
        *("PYTHONUNBUFFERED", "PYTHONIOENCODING", "PYTHONWARNINGS", "PYTHONDEVMODE", "PYTHONASYNCIODEBUG"),
        *("PYTHONMALLOC", "PYTHONTRACEMALLOC"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "OPENSSL_CONF", "OPENSSL_MODULES"),
        *("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "all_proxy", "no_proxy"),
        *("NVIDIA_VISIBLE_DEVICES", "NVIDIA_DRIVER_CAPABILITIES", "NVIDIA_TF32_OVERRIDE", "GPU_DEVICE_ORDINAL"),
    }
)
_FAMILIES = (
    "LC_",
    "MALLOC_",
    *("OMP_", "GOMP_", "KMP_", "MKL_", "OPENBLAS_", "GOTO_", "BLIS_", "NUMEXPR_", "NUMBA_"),
    *("CUDA_", "CUDNN_", "CUBLAS_", "NCCL_", "TORCH_", "TORCHINDUCTOR_", "PYTORCH_", "TRITON_"),
    *("HIP_", "HSA_", "ROCM_", "ROCR_", "MIOPEN_", "AMD_"),
)
"""Settings of libraries that compute; new ones appear with each release."""
_SECRET = re.compile(r"KEY|TOKEN|SECRET|PASS|CREDENTIAL|AUTH", re.IGNORECASE)


def passed_on(names: Iterable[str]) -> frozenset[str]:
    """Those of ``names`` that a process which the supervisor starts may see."""
    return frozenset(name for name in names if name in _NAMES or _of_a_family(name))


def _of_a_family(name: str) -> bool:
    return name.startswith(_FAMILIES) and _SECRET.search(name) is None
