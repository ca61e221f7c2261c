"""Reads the owner's files, makes their mocks, and publishes them again when they change. Does not use PySyft."""
