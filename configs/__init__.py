"""One experiment a file: `get_config(arg)` returns a ConfigDict. Imports ml_collections only."""
