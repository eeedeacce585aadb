"""Construction, annotation and filtering of critique data (AutoMathCritique)."""
