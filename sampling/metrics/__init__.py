"""Metrics of critics and of accuracy against cost."""
