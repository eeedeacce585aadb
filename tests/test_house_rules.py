"""The house rules that a reader would otherwise have to trust."""

import ast
import collections
import functools
import pathlib
import sys
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).parents[1]
MAY_IMPORT = {
    'model': {'model'},
    'data': {'data'},
    'sampling': {'sampling', 'model', 'data'},
    'train': {'train', 'sampling', 'model', 'data'},
    'scripts': {'scripts', 'train', 'sampling', 'model', 'data'},
    'configs': {'configs'},
}
NO_JAX = {'jax', 'jaxlib', 'flax', 'optax', 'orbax'}
UNPICKLES = {'pickle', 'dill', 'cloudpickle', 'joblib', 'shelve', 'marshal', 'yaml', 'torch'}
VAGUE = {'util', 'common', 'base', 'helper', 'misc'}
BLIND = {'Exception', 'BaseException'}
OURS = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob('*.py'))
EVERY = OURS + sorted((ROOT / 'tests').rglob('*.py'))
DIALECT = {'told', 'found', 'made', 'asked', 'given', 'begun', 'held', 'left', 'noted'}
SUMMARY_KEYS = {'found', 'found_by'}
"""Keys of summary.json that a name may repeat."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
NAMING = (*FUNCTIONS, ast.ClassDef, ast.arg, ast.Name, ast.Attribute, ast.alias, ast.ExceptHandler)
TRANSFORMS = ('jax.', 'sharding.apply_per_shard')  # the second is our jax.shard_map


@functools.cache
def _tree(path: pathlib.Path) -> ast.Module:
    return ast.parse(path.read_text(encoding='utf-8'), filename=str(path))


@functools.cache
def _nodes_by_kind(path: pathlib.Path) -> dict[type, list[ast.AST]]:
    nodes = collections.defaultdict(list)
    for node in ast.walk(_tree(path)):
        nodes[type(node)].append(node)
    return nodes


def _nodes(paths, *kinds) -> Iterator[tuple[str, ast.AST]]:
    """Every syntax node of a kind with the place it stands at."""
    for path in paths:
        for kind, nodes in _nodes_by_kind(path).items():
            if issubclass(kind, kinds):
                for node in nodes:
                    yield f'{path.relative_to(ROOT)}:{node.lineno}', node


def _nested(path: pathlib.Path) -> Iterator[ast.FunctionDef]:
    """Functions inside functions of a file."""
    for outer in ast.walk(_tree(path)):
        if isinstance(outer, FUNCTIONS):
            for node in ast.walk(outer):
                if isinstance(node, FUNCTIONS) and node is not outer:
                    yield node


def _transformed(path: pathlib.Path) -> set[str]:
    """Names of functions that a file passes to a transform, such as jax.jit or jax.lax.scan."""
    return {
        argument.id
        for call in ast.walk(_tree(path))
        if isinstance(call, ast.Call) and ast.unparse(call.func).startswith(TRANSFORMS)
        for argument in call.args
        if isinstance(argument, ast.Name)
    }


def _names(node: ast.AST) -> list[str]:
    """Names that a node defines: of a function, class, parameter, variable or attribute."""
    if isinstance(node, (*FUNCTIONS, ast.ClassDef)):
        return [node.name]
    if isinstance(node, ast.arg):
        return [node.arg]
    if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
        return [node.id]
    if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
        return [node.attr]
    if isinstance(node, ast.alias):
        return [node.asname] if node.asname else []
    if isinstance(node, ast.ExceptHandler):
        return [node.name] if node.name else []
    return []


def _package(place: str) -> str:
    return place.partition('/')[0]


def _imports(paths) -> Iterator[tuple[str, str]]:
    """Places and package names of all imports, those inside functions too.

    The name is the part behind `elenchus.` for our own packages.
    """
    for place, node in _nodes(paths, ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif node.level:
            modules = [_package(place)]
        else:
            modules = [f'{node.module}.{alias.name}' for alias in node.names]
        for module in modules:
            yield place, module.removeprefix('elenchus.').partition('.')[0]


def test_imports_run_one_way():
    ours = set(MAY_IMPORT) | {'tests'}
    wrong = [
        f'{place} imports {name}'
        for place, name in _imports(OURS)
        if name in ours and name not in MAY_IMPORT[_package(place)]
    ]
    assert not wrong


def test_own_packages_are_imported_by_their_one_name():
    ours = set(MAY_IMPORT)
    modules = [
        (place, name)
        for place, node in _nodes(EVERY, ast.Import, ast.ImportFrom)
        for name in (
            [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    ]
    # A peer's environment has no elenchus: its workers import each other from the clone.
    wrong = [m for m in modules if m[1].partition('.')[0] in ours and m[1] != 'scripts.bench.peers']
    assert not wrong


def test_no_script_imports_another():
    packages = {'bench', 'launch'}  # of several files each
    entries = [p for p in (ROOT / 'scripts').rglob('*.py') if not packages & set(p.parts)]
    assert not [place for place, name in _imports(entries) if name == 'scripts']


def test_data_is_numpy_and_text_without_jax():
    imports = _imports(path for path in OURS if path.is_relative_to(ROOT / 'data'))
    assert not [f'{place} imports {name}' for place, name in imports if name in NO_JAX]


def test_launchers_import_the_standard_library_alone():
    files = [path for path in OURS if path.is_relative_to(ROOT / 'scripts' / 'launch')]
    modules = {node.module for _, node in _nodes(files, ast.ImportFrom) if node.module}
    own = {name for name in modules if name.startswith('elenchus.')}
    shared = ('printable', 'run_times', 'run_status', 'alerts')  # which need nothing either
    paths = [ROOT / 'data' / 'text' / f'{name}.py' for name in shared]
    assert {name for _, name in _imports(paths)} - {'data'} <= sys.stdlib_module_names
    own -= {f'elenchus.data.text.{name}' for name in shared}
    assert files and all(name.startswith('elenchus.scripts.launch') for name in own)
    files = [path for path in files if path.name != 'budget.py']  # on hosts, in the environment
    assert {name for _, name in _imports(files)} - {'scripts', 'data'} <= sys.stdlib_module_names


def test_configs_import_nothing_of_ours_and_methods_only_arrays_besides():
    imports = _imports(path for path in OURS if path.is_relative_to(ROOT / 'configs'))
    allowed = {'ml_collections', 'configs'} | sys.stdlib_module_names
    arrays = {'configs/methods': {'numpy', 'jax'}, 'configs/evaluations': {'numpy'}}
    wrong = [
        (place, name)
        for place, name in imports
        if name not in allowed | arrays.get(place.rpartition('/')[0], set())
    ]
    assert not wrong


def test_files_and_classes_are_named_for_what_they_hold():
    assert not [path for path in EVERY if path.stem.rstrip('s') in VAGUE]
    classes = _nodes(EVERY, ast.ClassDef)
    assert not [place for place, node in classes if node.name.endswith('Manager')]


def test_nothing_is_caught_blindly():
    for place, handler in _nodes(EVERY, ast.ExceptHandler):
        assert handler.type is not None, f'{place}: bare except'
        caught = {node.id for node in ast.walk(handler.type) if isinstance(node, ast.Name)}
        assert not caught & BLIND, f'{place}: except {caught & BLIND}'


def test_text_is_never_evaluated_but_in_the_sandbox():
    outside = [path for path in EVERY if path != ROOT / 'data' / 'tools' / 'program.py']
    calls = [(place, node.func) for place, node in _nodes(outside, ast.Call)]
    names = [(place, call.id) for place, call in calls if isinstance(call, ast.Name)]
    assert not [place for place, name in names if name in {'eval', 'exec', 'compile'}]


def test_nothing_is_unpickled():
    """A pickle runs code when it is read; so do YAML's tags and PyTorch's files."""
    product = [path for path in OURS if 'bench' not in path.parts]
    assert not [place for place, name in _imports(product) if name in UNPICKLES]
    calls = [(place, node) for place, node in _nodes(product, ast.Call)]
    loads = [(p, c) for p, c in calls if ast.unparse(c.func) in ('np.load', 'numpy.load')]
    assert not [p for p, c in loads if any(k.arg in ('allow_pickle', None) for k in c.keywords)]
    names = [(place, ast.unparse(call.func)) for place, call in calls]
    forbidden = ('torch.load', 'yaml.load', 'tfds.builder_from_directory', 'tfds.load')
    assert not [place for place, name in names if name in forbidden]


def test_no_open_notes_are_in_files():
    notes = ('TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X')
    texts = {path: path.read_text(encoding='utf-8') for path in EVERY}
    assert not [path for path, text in texts.items() if any(note in text for note in notes)]


def test_every_file_has_a_docstring():
    assert not [path for path in OURS if not ast.get_docstring(_tree(path))]


def test_no_function_is_longer_than_fifty_lines():
    functions = _nodes(OURS, *FUNCTIONS)
    sizes = [(place, node.name, node.end_lineno - node.lineno + 1) for place, node in functions]
    assert not [size for size in sizes if size[-1] > 50]


def test_no_file_is_longer_than_350_lines():
    sizes = {path: len(path.read_text(encoding='utf-8').splitlines()) for path in EVERY}
    assert not {str(path.relative_to(ROOT)): size for path, size in sizes.items() if size > 350}


def test_no_function_has_more_than_three_positional_parameters():
    wrong = []
    for path in OURS:
        # jax.lax.scan, jax.shard_map and the like pass arrays by position only.
        free = {id(node) for node in _nested(path) if node.name in _transformed(path)}
        for place, node in _nodes([path], *FUNCTIONS):
            names = [arg.arg for arg in node.args.posonlyargs + node.args.args]
            count = len(names) - (names[:1] in (['self'], ['cls']))
            if count > 3 and id(node) not in free:
                wrong.append(f'{place} {node.name}: {count}')
    assert not wrong, '\n'.join(wrong)


def test_every_public_function_and_class_has_a_docstring():
    wrong = []
    for path in OURS:
        nested = {id(node) for node in _nested(path)}
        for place, node in _nodes([path], *FUNCTIONS, ast.ClassDef):
            if id(node) not in nested and not node.name.startswith('_'):
                wrong += [] if ast.get_docstring(node) else [f'{place} {node.name}']
    assert not wrong, '\n'.join(wrong)


def test_names_are_nouns_and_verbs_of_the_field():
    """No participle stands for the noun that it belongs to: `summary` and not `told`."""
    wrong = [
        f'{place} {name}'
        for place, node in _nodes(EVERY, *NAMING)
        for name in _names(node)
        if name not in SUMMARY_KEYS and DIALECT & set(name.lower().split('_'))
    ]
    assert not wrong, '\n'.join(wrong)


def test_every_package_is_checked():
    packages = {path.parent.name for path in ROOT.glob('*/__init__.py')}
    assert packages - {'tests'} <= set(MAY_IMPORT)
