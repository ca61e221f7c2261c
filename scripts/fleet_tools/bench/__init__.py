"""What ``scripts/bench`` runs. ``figures`` is pure; ``world`` and ``plant`` touch processes; ``benches`` measure."""
