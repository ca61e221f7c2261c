"""What ``fleet doctor gpu`` runs. ``verdict`` and ``compare`` are pure; ``host`` and ``plant`` touch GPUs and
processes; ``questions`` is what runs inside the datasites; ``checks`` holds the promises."""
