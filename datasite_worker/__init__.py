"""One PySyft datasite, its whole lifecycle. Knows nothing of the supervisor.

``FactoryDatasite`` is loaded on first use: importing this package must stay cheap, because the supervisor
imports ``fleet_common.contract`` and ``datasite_worker.entry`` and may never pull in syft or torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasite_worker.datasite import FactoryDatasite

__all__ = ["FactoryDatasite"]


def __getattr__(name: str) -> Any:
    if name == "FactoryDatasite":
        from datasite_worker.datasite import FactoryDatasite

        return FactoryDatasite
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
