"""What ``scripts/chaos`` runs.

``plan``, ``verdict`` and ``journal`` are pure; ``world``, ``plant``, ``board``, ``disk`` and ``clients`` touch one
outside thing each; ``faults`` break them; ``siege`` conducts; ``checks`` look at what is left.
"""
