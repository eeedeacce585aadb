"""Placement: fixes the sharding of models, optimizers and batches, and jits functions with it.

A bare `jax.jit` lets XLA choose the shardings of its results. XLA replicates results that depend on
no data, such as new optimizer moments, and may return an equivalent sharding that compares unequal:
the next call then compiles again and cannot reuse a donated buffer. So this module creates, moves
and returns every array that outlives a program (`Placement.init`, `place` and `jit`).
"""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from elenchus.model import sharding, weight_gather

Axes = Any
"""Logical axes of plain arrays: a tree prefix of `P('batch', ...)`; None or P() is replicated.

Dimensions that a spec does not name are not split. Variables (`nnx.Param`) carry their own axes.
"""
ROWS = P('batch')
"""Axes of arrays [B, ...] whose rows are split over the mesh, such as a Batch."""


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh and the rules that map logical axes to it; it gives every array one sharding."""

    mesh: jax.sharding.Mesh | jax.sharding.AbstractMesh
    rules: Mapping[str | None, Any] = dataclasses.field(
        default_factory=lambda: sharding.RULES, hash=False
    )

    def shardings(self, tree: Any, axes: Axes = None) -> Any:
        """Returns a NamedSharding for each array of a tree (of arrays or ShapeDtypeStructs).

        Raises ValueError, naming the array, if a dimension does not divide over its mesh axes.
        """
        return sharding.shardings(tree, self.mesh, rules=self.rules, axes=axes)

    def abstract(self, tree: Any, axes: Axes = None) -> Any:
        """Returns ShapeDtypeStructs of the tree's arrays with their shardings."""
        return jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            tree,
            self.shardings(tree, axes),
        )

    def place(self, tree: Any, axes: Axes = None) -> Any:
        """Moves a tree to its shardings; arrays that have them already are shared, not copied.

        Every process must hold the whole of a host array; it copies only the shards of its own
        devices. Arrays of another mesh are resharded.
        """
        return jax.tree.map(_put, tree, self.shardings(tree, axes))

    def init(self, function: Callable[..., Any], *args, axes: Axes = None) -> Any:
        """Returns function(*args) with its result sharded, so that no device ever holds all of it.

        `axes` are those of the plain arrays in the result.
        """
        return self.jit(function, out_axes=axes)(*args)

    def jit(self, function: Callable[..., Any], **options) -> 'PinnedFunction':
        """Returns the function, jitted for this placement; `options` as in `pinned_jit`."""
        return PinnedFunction(function, placement=self, **options)

    @contextlib.contextmanager
    def in_force(self):
        """Makes this mesh that of `sharding.constrain` (`jax.set_mesh`) in a block."""
        with contextlib.ExitStack() as stack:
            if not isinstance(self.mesh, jax.sharding.AbstractMesh):
                stack.enter_context(weight_gather.on_torus(self.mesh))
                if jax.sharding.get_mesh() != self.mesh:
                    stack.enter_context(jax.set_mesh(self.mesh))
            yield


def current() -> Placement:
    """Returns the placement of the mesh in force; without one, of the first device alone."""
    abstract = jax.sharding.get_abstract_mesh()
    is_abstract = _is_tracing() or jax.sharding.get_mesh().empty  # or a machine not present
    if is_abstract and not abstract.empty:
        return Placement(abstract)
    return Placement(sharding.current_mesh())


def pinned_jit(function: Callable[..., Any] | None = None, **options):
    """Like `jax.jit`, but fixes the shardings of inputs and results; also a decorator.

    Each call uses the placement in force. Arguments of equal shapes share one program, whatever
    program produced them.

    Args:
      static_argnames: arguments that are compiled in; they must be hashable.
      donate_argnames: arguments whose buffers the results reuse; they are deleted.
      axes: argument name -> `Axes` of its plain arrays.
      out_axes: `Axes` of the result.
    """
    if function is None:
        return functools.partial(pinned_jit, **options)
    return PinnedFunction(function, placement=None, **options)


def _placement_of(arguments: Any) -> Placement:
    """Returns the placement in force; without a mesh in force, that of the arguments."""
    if jax.sharding.get_mesh().empty and jax.sharding.get_abstract_mesh().empty:
        for x in jax.tree.leaves(arguments):
            if isinstance(getattr(x, 'sharding', None), NamedSharding):
                return Placement(x.sharding.mesh)
    return current()


class PinnedFunction:
    """A jitted function with fixed shardings of inputs and results.

    It has one program for each combination of placement, static arguments, and structure, shapes
    and dtypes of the others.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        placement: Placement | None,
        static_argnames: str | Sequence[str] = (),
        donate_argnames: str | Sequence[str] = (),
        axes: Mapping[str, Axes] | None = None,
        out_axes: Axes = None,
    ):
        names = lambda value: (value,) if isinstance(value, str) else tuple(value)  # noqa: E731
        self._function, self._placement = function, placement
        self._signature = inspect.signature(function)
        self._static, self._donated = names(static_argnames), names(donate_argnames)
        self._axes, self._out_axes = dict(axes or {}), out_axes
        self.programs: dict[Any, Callable[..., Any]] = {}
        self._compiled: dict[Any, jax.stages.Compiled] = {}
        functools.update_wrapper(self, function)

    def __call__(self, *args, **kwargs):
        """Calls the program for these arguments; inside a trace, calls the plain function."""
        if _is_tracing():
            return self._function(*args, **kwargs)
        placement = self._placement or _placement_of((args, kwargs))
        key, dynamic = self._program(placement, args, kwargs)
        with placement.in_force():
            return self._compiled.get(key, self.programs[key][0])(*dynamic)

    def prepare(self, *args, **kwargs) -> tuple[Callable[[], None], Any]:
        """Lowers the program of these arguments, which may be ShapeDtypeStructs.

        Returns (a function that compiles it and may run in another thread, the results as
        ShapeDtypeStructs with shardings). After the compilation, calls trace nothing.
        """
        placement = self._placement or _placement_of((args, kwargs))
        key, dynamic = self._program(placement, args, kwargs)
        with placement.in_force():
            lowered = self.programs[key][0].lower(*dynamic)
        results = jax.tree.map(
            lambda x, place: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place),
            lowered.out_info,
            self.programs[key][2],
        )

        def compile_lowered() -> None:
            self._compiled[key] = lowered.compile()

        return compile_lowered, results

    def lower(self, *args, **kwargs) -> jax.stages.Lowered:
        """Lowers the program of these arguments, which may be ShapeDtypeStructs."""
        placement = self._placement or _placement_of((args, kwargs))
        key, dynamic = self._program(placement, args, kwargs)
        with placement.in_force():
            return self.programs[key][0].lower(*dynamic)

    def _program(self, placement: Placement, args, kwargs):
        """Returns (key of the program in `programs`, its dynamic arguments)."""
        bound = self._signature.bind(*args, **kwargs)
        values = bound.arguments
        static = {name: values[name] for name in self._static if name in values}
        dynamic = {name: value for name, value in values.items() if name not in static}
        leaves, structure = jax.tree.flatten(dynamic)
        key = placement, tuple(static.items()), structure, tuple(map(_shape, leaves))
        if key not in self.programs:
            self.programs[key] = self._build(placement, static, dynamic)
        shardings = self.programs[key][1]
        for leaf, place in zip(leaves, jax.tree.leaves(shardings), strict=True):
            if not _lies_at(leaf, place):
                raise ValueError(_misplaced(dynamic, shardings))
        if jax.process_count() > 1:  # `jit` then accepts host arrays only if they are replicated
            put = lambda x, place: _put(x, place) if isinstance(x, np.ndarray) else x  # noqa: E731
            dynamic = {
                name: jax.tree.map(put, value, shardings[name]) for name, value in dynamic.items()
            }
        return key, tuple(dynamic.values())

    def _build(self, placement: Placement, static: dict, dynamic: dict):
        """Returns (jitted function of the dynamic arguments, their shardings, result shardings)."""
        names = tuple(dynamic)
        shardings = {
            name: placement.shardings(value, self._axes.get(name))
            for name, value in dynamic.items()
        }

        @functools.wraps(self._function)
        def program(*values):
            arguments = static | dict(zip(names, values, strict=True))
            bound = inspect.BoundArguments(self._signature, arguments)
            return self._function(*bound.args, **bound.kwargs)

        del program.__wrapped__  # else `jit` would read the signature of the wrapped function
        with placement.in_force():
            # `jit` traces once: both of its uses below share the trace.
            results = jax.jit(program).eval_shape(*dynamic.values())
        out_shardings = placement.shardings(results, self._out_axes)
        jitted = jax.jit(
            program,
            in_shardings=tuple(shardings.values()),
            out_shardings=out_shardings,
            donate_argnums=tuple(names.index(name) for name in self._donated if name in names),
        )
        return jitted, shardings, out_shardings


def _put(x: Any, place: NamedSharding) -> jax.Array:
    if isinstance(x, jax.Array):
        return jax.device_put(x, place)
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, place, lambda index: x[index])


def _lies_at(x: Any, place: NamedSharding) -> bool:
    """Returns whether x has this sharding, or is a host or uncommitted array that `jit` moves."""
    here = getattr(x, 'sharding', None)
    if here is None or here == place:
        return True
    return not getattr(x, 'committed', True) or here.is_equivalent_to(place, x.ndim)


def _misplaced(values: Any, shardings: Any) -> str:
    """Returns an error message that names the first array with another sharding than its own."""
    pairs = jax.tree.map(
        lambda x, place: None if _lies_at(x, place) else (x, place), values, shardings
    )
    is_pair = lambda x: isinstance(x, tuple) and isinstance(x[-1], NamedSharding)  # noqa: E731
    path, (x, place) = jax.tree_util.tree_leaves_with_path(pairs, is_leaf=is_pair)[0]
    name = jax.tree_util.keystr(path)
    return f'{name} lies at {x.sharding}, not at {place}: move it there with Placement.place'


def _is_tracing() -> bool:
    """Returns True inside of a function that `jax.jit`, `jax.eval_shape` and the like trace."""
    try:
        jax.sharding.get_mesh()
    except ValueError:  # JAX's answer there
        return True
    return False


def _shape(x: Any) -> tuple:
    """Shape and dtype of an argument; a Python number has the type that JAX gives it."""
    if not hasattr(x, 'shape'):
        return (), type(x)
    return tuple(x.shape), x.dtype
