"""Small tools for looking at tokens, critique records, verifiers and tokenizers."""
