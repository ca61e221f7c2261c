"""The tools around a fleet: ``bench`` measures it, ``chaos`` breaks it, and ``fleet doctor gpu`` runs ``gpu_check``.

What they share lies beside them; ``temporary_fleet`` brings up a real fleet for all of them, and for the real tests.
Nothing of this is loaded by the supervisor, a datasite or the centre.
"""
