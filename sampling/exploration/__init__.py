"""Exploration for self-improvement: explorers, selection, round controller and coverage."""
