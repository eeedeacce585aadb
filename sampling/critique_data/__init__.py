"""Critique data in the manner of AutoMathCritique: construction, annotation and filtering."""
