"""PySyft's queued jobs: each in a process of its own, forked by a zygote, bounded, and told of when it is cut off."""
