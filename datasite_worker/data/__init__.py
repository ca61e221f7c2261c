"""The owner's files: read, given a mock, published, and published anew when they change. Knows no PySyft."""
