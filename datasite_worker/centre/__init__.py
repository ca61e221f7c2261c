"""Registration and heartbeats: what a datasite tells the central dashboard."""
