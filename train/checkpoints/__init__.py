"""Checkpoints of training states and of models."""
