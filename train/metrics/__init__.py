"""Metrics of a run: rows on disk, TensorBoard, progress."""
