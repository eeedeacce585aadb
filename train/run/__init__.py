"""A run on disk: its folder, inputs, lock and models."""
