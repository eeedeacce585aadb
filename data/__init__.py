"""The data of the pipeline: problems, text, tokens and batches. NumPy only, no JAX."""
