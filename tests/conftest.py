"""Eight virtual CPU devices, a compilation cache, deterministic hypothesis, and real data."""

import os
import pathlib

ROOT = pathlib.Path(__file__).parents[1]
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_COMPILATION_CACHE_DIR', str(ROOT / '.cache' / 'jax'))
os.environ.setdefault('JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS', '0')
# Tests compile much and compute little: without optimisation, and with one plain emitter instead of
# one MLIR pipeline per fusion, they take a third of the time. XLA refuses to start with a flag that
# it does not know: then remove the flag here.
COMPILE_FAST = (
    '--xla_backend_optimization_level=0',
    '--xla_cpu_use_fusion_emitters=false',
    '--xla_cpu_parallel_codegen_split_count=1',
)
os.environ.setdefault('XLA_FLAGS', ' '.join(COMPILE_FAST))

# Flushing every file to the disk takes some ten milliseconds, and no test survives a power cut.
os.fsync = lambda descriptor: None

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

jax.config.update('jax_num_cpu_devices', 8)

hypothesis.settings.register_profile(
    'elenchus', derandomize=True, database=None, deadline=None, max_examples=20
)
hypothesis.settings.load_profile('elenchus')


@pytest.fixture(scope='session')
def shared_data() -> pathlib.Path:
    """The folder of real data: $ELENCHUS_DATA, or shared/data beside the checkout."""
    path = os.environ.get('ELENCHUS_DATA')
    folder = pathlib.Path(path) if path else ROOT.parent / 'shared' / 'data'
    if not folder.is_dir():
        pytest.skip(f'folder of real data not found: {folder}; set ELENCHUS_DATA')
    return folder


@pytest.fixture(scope='module', autouse=True)
def restored_mesh():
    """Opening a run sets the mesh and the precision of the process: not for the next file."""
    before, precision = jax.sharding.get_mesh(), jax.config.jax_default_matmul_precision
    yield
    jax.set_mesh(before)
    jax.config.update('jax_default_matmul_precision', precision)
