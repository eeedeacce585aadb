"""Eight virtual CPU devices, a compilation cache, deterministic hypothesis, and real data."""

import gc
import os
import pathlib
import sys

ROOT = pathlib.Path(__file__).parents[1]
# Where byte code is not written, each process that a test starts compiles all of JAX anew, which is
# half of its start. It goes below .cache, so that packages and sources stay as they are.
if os.environ.pop('PYTHONDONTWRITEBYTECODE', None):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = os.environ['PYTHONPYCACHEPREFIX'] = str(ROOT / '.cache' / 'bytecode')
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

# Files that take longest, in this order: a worker that begins one last works on alone.
LONGEST = (
    *('test_run.py', 'test_canonical.py', 'test_config_programs.py', 'test_meshes.py'),
    *('test_overlap.py', 'test_method_files.py', 'test_every_field.py', 'test_python_api.py'),
    *('test_interruption.py', 'test_trainer.py', 'test_value_model.py', 'test_problems.py'),
    *('test_plot_files.py', 'test_engine.py', 'test_placed_training.py', 'test_frames.py'),
    *('test_training_on_meshes.py', 'test_real_model.py'),
)

# Flushing every file to the disk takes some ten milliseconds, and no test survives a power cut.
os.fsync = lambda descriptor: None

import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402

from tests.support import forked_runs  # noqa: E402

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Puts the longest files first; scripts/test.sh has xdist keep the order."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_collection_finish() -> None:
    """Lets the garbage collector run rarely: it costs an eighth of the time of tracing."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 20)


@pytest.fixture(scope='session')
def fork():
    """Runs a script in a fork of a process that has imported the product (support/forked_runs)."""
    with forked_runs.forking('elenchus.scripts.run') as run:
        yield run


@pytest.fixture(scope='module', autouse=True)
def restored_mesh():
    """Opening a run sets the mesh and the precision of the process: not for the next file."""
    before, precision = jax.sharding.get_mesh(), jax.config.jax_default_matmul_precision
    yield
    jax.set_mesh(before)
    jax.config.update('jax_default_matmul_precision', precision)
