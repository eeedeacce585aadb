"""Placement: where the arrays of models, optimizers and batches lie, and programs pinned to it.

A bare `jax.jit` lets XLA choose where its results lie. It replicates what depends on no data, such
as new optimizer moments, and it names an equal sharding in another way, so that the next call
compiles again and a donated buffer cannot be reused. Every array that outlives a program is
therefore created (`Placement.init`), moved (`Placement.place`) and returned (`Placement.jit`) here.
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

Axes that a spec does not name stay whole. Variables (`nnx.Param`) carry their own axes.
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
        """Moves a tree to its shardings; arrays that lie there already are shared, not copied.

        Every process has the whole of a host array and copies only the shards of its own devices.
        Arrays of another mesh are resharded.
        """
        return jax.tree.map(_put, tree, self.shardings(tree, axes))

    def init(self, function: Callable[..., Any], *args, axes: Axes = None) -> Any:
        """Returns function(*args), computed where it belongs: no device has more than its shards.

        `axes` are those of plain arrays of the result.
        """
        return self.jit(function, out_axes=axes)(*args)

    def jit(self, function: Callable[..., Any], **options) -> 'PinnedFunction':
        """Returns the function as programs on this placement; `options` as in `pinned_jit`."""
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
    is_abstract = _is_tracing() or jax.sharding.get_mesh().empty  # a machine that is not present
    if is_abstract and not abstract.empty:
        return Placement(abstract)
    return Placement(sharding.current_mesh())


def pinned_jit(function: Callable[..., Any] | None = None, **options):
    """Returns the function as compiled programs, each on the placement in force at its call.

    Works as `jax.jit`, also as a decorator, with shardings of inputs and results that do not
    depend on the compiler. One shape of arguments is one program, whatever produced them.

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
    """A function as compiled programs with pinned inputs and results: one for each shape."""

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
        """Calls the program of these arguments; inside another program it is a part of that."""
        if _is_tracing():
            return self._function(*args, **kwargs)
        placement = self._placement or _placement_of((args, kwargs))
        key, dynamic = self._program(placement, args, kwargs)
        with placement.in_force():
            return self._compiled.get(key, self.programs[key][0])(*dynamic)

    def prepare(self, *args, **kwargs) -> tuple[Callable[[], None], Any]:
        """Lowers the program of these arguments, which may be ShapeDtypeStructs.

        Returns (a function that compiles it, which may run in another thread; the results as
        ShapeDtypeStructs with shardings). Later calls run what was compiled and trace nothing.
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
        if jax.process_count() > 1:  # `jit` then takes only those host arrays that are replicated
            put = lambda x, place: _put(x, place) if isinstance(x, np.ndarray) else x  # noqa: E731
            dynamic = {
                name: jax.tree.map(put, value, shardings[name]) for name, value in dynamic.items()
            }
        return key, tuple(dynamic.values())

    def _build(self, placement: Placement, static: dict, dynamic: dict):
        """Returns (jitted function of the dynamic arguments, their shardings, its results')."""
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

        del program.__wrapped__  # its signature is another one
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
    """Returns False if an array would have to be moved; host and uncommitted arrays go anywhere."""
    here = getattr(x, 'sharding', None)
    if here is None or here == place:
        return True
    return not getattr(x, 'committed', True) or here.is_equivalent_to(place, x.ndim)


def _misplaced(values: Any, shardings: Any) -> str:
    """Names the first array that lies elsewhere than its sharding."""
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
