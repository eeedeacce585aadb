"""Settings: typed sections, strict building, checks, and the command line."""
