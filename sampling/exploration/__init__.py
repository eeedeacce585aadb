"""Exploration for self-improvement: proposals, selection, control and coverage."""
