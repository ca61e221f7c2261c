"""Each file handles one thing of the outside world and decides nothing; ``supervisor.policy`` decides."""
