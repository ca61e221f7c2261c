"""Federated training in rounds over several datasites. ``fleet train`` runs it over a fleet.

``aggregation`` and ``rounds`` are pure. ``federation`` connects them to time and threads, ``lines`` to datasites over
the network. The other modules write files and show progress.
"""
