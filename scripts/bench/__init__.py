"""Benchmark of this project and of its peers on the same shapes."""
