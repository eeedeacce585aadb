"""Text and tokens: tokenizers, chat templates and conversations."""
