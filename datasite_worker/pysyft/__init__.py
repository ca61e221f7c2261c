"""The only package that uses or replaces PySyft's internals, for datasites, jobs and the orchestrator's client.

PySyft 0.9.5 is its last release, so its faults are corrected here; docs/security.md says which, and why.
"""
