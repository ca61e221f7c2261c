"""What people and programs see of the fleet: the command line, the table, the control client."""
