"""Pure decisions: values in, values out. No clock, no process, no socket, no randomness."""
