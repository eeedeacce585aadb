"""Checkpoints: resumable training states, and saved models and adapters."""
