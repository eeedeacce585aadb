"""Evaluation of models outside a run: problem sets, benchmarks of critics, and a chat."""
