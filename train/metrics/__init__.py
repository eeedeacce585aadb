"""Metrics of a run: rows on disk, TensorBoard, and progress on the terminal."""
