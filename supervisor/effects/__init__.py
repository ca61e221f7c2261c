"""One outside thing each, and dull: what to do is decided in ``supervisor.policy``."""
