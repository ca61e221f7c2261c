"""The dashboard: datasites register here and send heartbeats; people and orchestrators see which of them are alive.

This package must stay cheap to import, because the supervisor imports ``central.dashboard.entry``.
"""
