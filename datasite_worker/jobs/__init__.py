"""PySyft's queued jobs: each runs in its own process, forked by a zygote. Limits how many run, and reports interrupted
ones."""
