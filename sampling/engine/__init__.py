"""The sampling engine: prompts in, completions with log-probabilities out."""
