"""What goes in: problems, text, tokens and batches. NumPy only, no JAX."""
