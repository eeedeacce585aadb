"""The kind of device that a program is compiled for; it need not be on this machine."""

import jax


def target_platform() -> str:
    """Platform that the current program is compiled for: 'cpu', 'gpu' or 'tpu'.

    It is the platform of the current mesh, which in a dry run need not be present on this machine.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device
    return jax.default_backend() if device is None else device.platform


def cpu_barrier(values):
    """On a CPU, keeps XLA from computing these arrays again in every operation that reads them.

    Elsewhere returns them: a barrier would force them into memory.
    """
    return jax.lax.optimization_barrier(values) if target_platform() == 'cpu' else values


def product_precision(dtype: str, precision: str) -> str | None:
    """Value of `jax_default_matmul_precision` for a model of this dtype: `precision` for float32.

    None, JAX's own default, for bfloat16: with another one its kernels do not compile for a TPU.
    """
    return precision if dtype == 'float32' else None
