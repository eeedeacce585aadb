"""Tools that a player may call while it writes: a calculator, and Python in a sandbox."""
