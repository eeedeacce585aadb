"""Benchmarks beside peers and rooflines."""
