"""Planning: memory, traffic and rooflines without weights."""
