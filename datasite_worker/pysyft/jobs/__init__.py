"""What PySyft knows of queued jobs: its stores, its answers to users, and the call of a user's function."""
