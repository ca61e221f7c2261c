"""Federated training: rounds over participants, and what is kept of them. ``fleet train`` runs it over a fleet.

``aggregation`` and ``rounds`` are pure; ``federation`` joins them to time and threads; ``lines`` are datasites over the
wire; the rest is files and a progress display.
"""
