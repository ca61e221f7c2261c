"""The one room for what replaces or borrows PySyft's internals. Serves datasite, jobs and the orchestrator's client.

PySyft 0.9.5 is the last of its line: what is wrong with it is mended here, and docs/security.md says what and why.
"""
