"""Grading: answers are extracted, compared and judged."""
