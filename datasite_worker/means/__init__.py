"""What a datasite may use (threads, GPUs, memory, CPU, disk, bandwidth), and how much of it is in use."""
