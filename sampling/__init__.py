"""Sampling: decoding engine, episodes, critique data, exploration, test-time critique, metrics."""
