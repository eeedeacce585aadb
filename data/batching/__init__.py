"""Batching: packing examples into rows, shared prompts, and the shuffled, resumable data set."""
