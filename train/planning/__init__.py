"""Plans of memory, traffic and speed for machines that need not be present."""
