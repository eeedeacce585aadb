"""Experts: MLPs of a block of which a router chooses some for each token.

    p = softmax(x @ router)          in float32, over all experts
    update = sum over the k experts of the largest p_e of  p_e * MLP_e(x)

with the chosen p_e divided by their sum under `normalise_experts`. No token is ever dropped, and
none waits for another: its update is the same in a packed row, in a prefill and in decoding.
Sources: Mixtral (arXiv 2401.04088), section 2.1, and Qwen 3 (arXiv 2505.09388).

The products are computed in one of two ways. TPUs and GPUs have a kernel for groups of rows
(`jax.lax.ragged_dot`), which multiplies each token with its k experts only. On a CPU that function
multiplies all rows with all experts, k times the work of `_apply_all`, which is used there: it was
2.6 to 5.5 times as fast forward, and 1 to 4.5 times with gradients (docs/log.md).

On a mesh every device of 'tensor' reads all tokens, and the updates are summed. Each has a slice of
every expert; with `expert_parallel` it has E / tensor whole experts, whose matrices keep their
width. Tokens are sent nowhere in either case.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from elenchus.model import layers, platforms, remat, tensor_products, token_shards
from elenchus.model.config import ModelConfig
from elenchus.model.projection import project
from elenchus.model.tensor_products import AXIS

AXES = ('experts', 'whole_experts')
"""Logical axes of experts: devices have slices of all, or whole ones."""
Matrices = tuple[jax.Array, jax.Array, jax.Array]
"""gate and up [E, D, F], down [E, F, D]."""


class ExpertUse(NamedTuple):
    """Sums over tokens, float32 [..., E]."""

    chosen: jax.Array  # tokens that chose an expert
    probability: jax.Array  # of choosing it


class Routes(NamedTuple):
    """What a router says about N tokens."""

    experts: jax.Array  # [N, k] int32, the largest probability first
    is_chosen: jax.Array  # [N, E] bool
    probabilities: jax.Array  # [N, E] float32
    shares: jax.Array  # [N, E] float32, weights of the chosen experts and zeros

    def of(self, own: jax.Array) -> 'Routes':
        """Returns what it says of experts `own` [E'], successive numbers; others are number E'."""
        local = self.experts - own[0]
        is_own = (local >= 0) & (local < own.size)
        columns = (
            jax.lax.dynamic_slice_in_dim(x, own[0], own.size, axis=1)
            for x in (self.is_chosen, self.probabilities, self.shares)
        )
        return Routes(jnp.where(is_own, local, own.size), *columns)


def choose(x: jax.Array, router, *, count: int, normalise: bool) -> Routes:
    """Returns the routes of tokens x [N, D] to `count` experts each; router [D, E]."""
    probabilities = jax.nn.softmax(project(x, router, contract=1, dtype='float32'))
    _, experts = jax.lax.top_k(probabilities, count)
    numbers = jnp.arange(probabilities.shape[-1], dtype=experts.dtype)
    is_chosen = (experts[:, :, None] == numbers).any(axis=1)
    shares = jnp.where(is_chosen, probabilities, 0.0)
    if normalise:
        shares = shares / shares.sum(axis=-1, keepdims=True)
    return Routes(experts, is_chosen, probabilities, shares)


class Experts(nnx.Module):
    """The experts of a block and their router."""

    def __init__(self, config: ModelConfig, *, rngs: nnx.Rngs):
        E, D, F, dtype = config.num_experts, config.embed_dim, config.mlp_dim, config.param_dtype

        def init(shape, axes, fan_in):
            return layers.init_weight(rngs.params(), shape, axes=axes, fan_in=fan_in, dtype=dtype)

        self.is_parallel = config.expert_parallel
        axis, mlp = (AXES[1], 'expert_mlp') if self.is_parallel else (AXES[0], 'mlp')
        self.router = init((D, E), ('embed', 'experts'), D)
        self.gate = init((E, D, F), (axis, 'embed', mlp), D)
        self.up = init((E, D, F), (axis, 'embed', mlp), D)
        self.down = init((E, F, D), (axis, mlp, 'embed'), F)
        self.activation = config.activation
        self.count, self.normalise = config.experts_per_token, config.normalise_experts

    def __call__(
        self, x: jax.Array, *, stream: tuple[str, ...] = (), counted: jax.Array | None = None
    ) -> tuple[jax.Array, ExpertUse | None]:
        """x [B, T, D] -> (update [B, T, D], use of the experts by each row [B, 1, E]).

        Only tokens with `counted` [B, T] are part of the use; None: it is not computed. `stream`:
        mesh axes that split the positions of x and of the update.
        """
        params = self.router, self.gate, self.up, self.down
        weights = [param[...] for param in params]
        mesh = jax.sharding.get_abstract_mesh()
        is_split = not mesh.empty and mesh.shape.get(AXIS, 1) > 1 and AXIS not in mesh.manual_axes
        specs = [tensor_products.specs_of(param) for param in params] if is_split else [None]
        in_stream = AXIS in stream
        if None in specs:
            # Not split by 'tensor', or not evenly: each device computes all of it.
            x = token_shards.join_stream(x) if in_stream else x
            update, use = self._apply(x, counted, weights)
            update = update.astype(x.dtype)
            return (token_shards.constrain_stream(update, stream) if in_stream else update), use

        def apply_local(x, counted, numbers, *weights):
            x = jax.lax.all_gather(x, AXIS, axis=1, tiled=True) if in_stream else x
            update, use = self._apply(x, counted, weights, own=numbers)
            if in_stream:
                update = update.astype(x.dtype)
                return jax.lax.psum_scatter(update, AXIS, scatter_dimension=1, tiled=True), use
            return jax.lax.psum(update, AXIS).astype(x.dtype), use

        positions = P(None, AXIS) if in_stream else P()
        numbers = jnp.arange(self.gate[...].shape[0]) if self.is_parallel else None
        return jax.shard_map(
            apply_local,
            in_specs=(positions, P(), P(AXIS), *(arrays for arrays, _ in specs)),
            out_specs=(positions, P()),
            axis_names={AXIS},
            check_vma=False,
        )(x, counted, numbers, *weights)

    def _apply(self, x, counted, weights, *, own=None) -> tuple[jax.Array, ExpertUse | None]:
        """The float32 update on one device; of matrices that 'tensor' splits, its part of it.

        own: numbers of the experts whose matrices these are; None: all, or a slice of all.
        """
        router, *matrices = weights
        flat = x.reshape(-1, x.shape[-1])
        routes = choose(flat, router, count=self.count, normalise=self.normalise)
        apply = _apply_all if computes_all() else _apply_chosen
        matrices = tuple(matrix.astype(x.dtype) for matrix in matrices)
        here = routes if own is None else routes.of(own)
        update = apply(flat, here, matrices, activation=self.activation).reshape(x.shape)
        if counted is None:
            return update, None
        rows = lambda y: y.reshape(*x.shape[:2], -1) * counted[..., None]  # noqa: E731
        sums = (
            rows(y).sum(axis=1, keepdims=True) for y in (routes.is_chosen, routes.probabilities)
        )
        return update, ExpertUse(*sums)


def computes_all() -> bool:
    """True where every expert computes every token, and not only those that chose it."""
    return platforms.target_platform() == 'cpu'


def _apply_all(x, routes: Routes, matrices: Matrices, *, activation: str) -> jax.Array:
    """Every expert on every token, weighted by its share: float32 [N, D]."""

    def add(total, expert):
        *expert_matrices, share = expert
        out = _mlp(x, expert_matrices, activation, product=jnp.matmul)
        return total + share[:, None] * out.astype('float32'), None

    zeros = jnp.zeros(x.shape, 'float32')
    return jax.lax.scan(add, zeros, (*matrices, routes.shares.T))[0]


def _apply_chosen(x, routes: Routes, matrices: Matrices, *, activation: str) -> jax.Array:
    """Each expert on the tokens that chose it, which are sorted by expert: float32 [N, D].

    Tokens of experts that are elsewhere come last, in no group: what is computed of them is cut.
    """
    count = routes.experts.shape[1]
    order = jnp.argsort(routes.experts.reshape(-1), stable=True)
    sizes = routes.is_chosen.sum(axis=0, dtype='int32')
    is_here = (jnp.arange(order.size) < sizes.sum())[:, None]

    def product(x, matrix):
        return jax.lax.ragged_dot(x, matrix, sizes)

    out = _mlp(jnp.where(is_here, x[order // count], 0), matrices, activation, product=product)
    out = jnp.where(is_here, out, 0)
    out = out[jnp.argsort(order)].reshape(-1, count, x.shape[1])  # in the order of the tokens
    shares = jnp.take_along_axis(routes.shares, routes.experts, axis=1, mode='fill', fill_value=0)
    return (shares[:, :, None] * out.astype('float32')).sum(axis=1)


def _mlp(x, matrices, activation: str, *, product) -> jax.Array:
    """The gated MLP of `layers.MLP`, with a product that may choose a matrix for each row."""
    gate, up, down = matrices
    gate, up = remat.mark(product(x, gate), 'gate'), remat.mark(product(x, up), 'up')
    return product(layers.ACTIVATIONS[activation](gate) * up, down)


def balance_loss(use: ExpertUse) -> jax.Array:
    """E * sum_e f_e * P_e of each layer, from the use [..., E]; k where all experts are used alike.

    f_e is the number of an expert's tokens and P_e the sum of its probabilities, both divided by
    the number of all tokens. Source: Switch Transformer (arXiv 2101.03961), equations 4 to 6, with
    k experts for a token as in `transformers`, but of each layer by itself: experts that are chosen
    too often in one layer are not made up for by those of another.
    """
    tokens = jax.lax.stop_gradient(use.probability.sum(axis=-1))
    scale = use.chosen.shape[-1] / jnp.maximum(tokens, 1.0) ** 2
    return scale * (use.chosen * use.probability).sum(axis=-1)


def counted_tokens(tokens: jax.Array, segments: jax.Array | None) -> jax.Array:
    """Returns [B, T] float32, 1 at tokens whose experts are counted: all but padding."""
    return jnp.ones(tokens.shape) if segments is None else (segments > 0).astype('float32')
