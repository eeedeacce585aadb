"""Small tools for data and tokenizers, for memory and speed estimates, and for lock files."""
