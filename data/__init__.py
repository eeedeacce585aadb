"""The data of the pipeline: problems, text, tokens and batches. It does not import JAX."""
