"""The tools around a fleet: ``bench`` measures it, ``chaos`` breaks it, and ``fleet doctor gpu`` runs ``gpu_check``.

Shared modules lie beside them; ``temporary_fleet`` brings up a real fleet for all of them and for the real tests.
Supervisor, datasite and centre load none of this.
"""
