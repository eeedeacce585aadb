"""Attention: inputs shared by all layers, the einsum for every device, and JAX's fused kernels."""
