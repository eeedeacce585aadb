"""Metrics of critics, accuracy against cost, and statistics over questions."""
