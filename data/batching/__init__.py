"""Batching: packing examples into rows, and the shuffled, resumable data set."""
