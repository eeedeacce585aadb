"""The train step: one function for SFT, self-training, DPO and reinforcement."""

import collections
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from elenchus.data.records import Batch
from elenchus.model import logprobs as logprobs_lib
from elenchus.model import lora
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.transformer import Transformer
from elenchus.train.objective import Objective, loss, with_gap
from elenchus.train.state import TrainState

Transform = Callable[[jax.Array], jax.Array]


def batch_logprobs(
    model: Transformer, batch: Batch, transform: Transform, shared: SharedPrompt | None = None
):
    """(log-probabilities, entropies), both [B, T], of a batch's own tokens.

    Both are 0 at the first token of every sequence, which nothing predicts, packed or not, and on
    `shared` prompts.
    """
    hidden, _ = model(batch.tokens, batch.positions, segments=batch.segments, shared=shared)
    tokens = batch.tokens
    if shared is not None:  # the responses, each after the last token of its prompt
        hidden, tokens = (shared.split_samples(x)[:, shared.prompt - 1 :] for x in (hidden, tokens))
    values = logprobs_lib.token_logprobs(model, hidden, tokens, transform=transform)
    if shared is not None:
        before = ((0, 0), (shared.prompt - 1, 0))
        values = [shared.join_samples(jnp.pad(x, before)) for x in values]
    return tuple(jnp.where(batch.positions > 0, x, 0.0) for x in values)


def loss_and_grads(
    model: Transformer | lora.Adapters,
    batch: Batch,
    *,
    objective: Objective,
    transform: Transform,
    num_microbatches: int,
    frozen: Transformer | None = None,
    gap: bool = False,
    shared: SharedPrompt | None = None,
):
    """(loss, grads, metrics) of a batch, whatever the number of microbatches.

    `model` is a whole model or, with its base as `frozen`, the adapters; gradients are of it alone.
    With `gap` metrics tell how far the model is from the batch's old log-probabilities. Sums and
    weights are accumulated and divided once; the rows of a batch are split evenly.
    """

    def sums(model, micro):
        logprobs, entropy = batch_logprobs(lora.join(model, frozen), micro, transform, shared)
        found = loss(objective, micro, logprobs, entropy)
        return found.total, with_gap(found, micro, logprobs) if gap else found

    value_and_grad = jax.value_and_grad(sums, has_aux=True)
    if num_microbatches == 1:
        (_, found), grads = value_and_grad(model, batch)
    else:
        rows = batch.tokens.shape[0]
        if rows % num_microbatches:
            raise ValueError(f'num_microbatches={num_microbatches} does not divide {rows} rows')
        # Row i goes to microbatch i % n: every microbatch then has rows on every data shard.
        split = jax.tree.map(
            lambda x: x.reshape(-1, num_microbatches, *x.shape[1:]).swapaxes(0, 1), batch
        )

        def accumulate(carry, micro):
            (_, more), grads = value_and_grad(model, micro)
            return _added(carry, (more, grads)), None

        first = jax.tree.map(lambda x: x[0], split)
        (_, shapes), grad_shapes = jax.eval_shape(value_and_grad, model, first)
        zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, 'float32'), (shapes, grad_shapes))
        (found, grads), _ = jax.lax.scan(accumulate, zeros, split)
    weight = jnp.maximum(found.weight, 1e-8)
    grads = jax.tree.map(lambda g: g / weight.astype(g.dtype), grads)
    means = {name: x / jnp.maximum(found.tokens, 1.0) for name, x in found.metrics.items()}
    total = found.total / weight
    told = {'loss/total': total, 'loss/tokens': found.tokens}
    return total, grads, means | found.maxima | told


def _added(carry, new):
    """(Sums, grads) of two parts of a batch together, in float32."""
    added = jax.tree.map(lambda s, x: s + x.astype(s.dtype), carry, new)
    largest = jax.tree.map(jnp.maximum, carry[0].maxima, new[0].maxima)
    return added[0]._replace(maxima=largest), added[1]


def part_norms(grads: Transformer) -> dict[str, jax.Array]:
    """Norm of the gradient of each part of the model: 'grads/attention', 'grads/mlp', ..."""
    squares = collections.defaultdict(list)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        names = [key.name for key in path if hasattr(key, 'name') and key.name != 'blocks']
        squares[names[0]].append(jnp.sum(jnp.square(leaf.astype('float32'))))
    return {f'grads/{part}': jnp.sqrt(sum(found)) for part, found in squares.items()}


def make_train_step(
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    transform: Transform,
    num_microbatches: int,
    skip_nonfinite: bool,
    gap: bool = False,
    shared: SharedPrompt | None = None,
):
    """Returns train_step(state, batch, frozen) -> (state, metrics), jitted; donates the state.

    `grads/finite` is 1 where loss and gradients are numbers; where they are not and
    `skip_nonfinite` is set, weights and optimizer state stay as they were.

    `frozen` is the base under a state of adapters, None where the state is a whole model. `gap`:
    the batch's old log-probabilities are the sampler's, and metrics tell how far the model's are.
    `shared`: how rows hold prompts that several samples continue.
    """

    def train_step(state: TrainState, batch: Batch, frozen: Transformer | None = None):
        _, grads, metrics = loss_and_grads(
            state.model,
            batch,
            objective=objective,
            transform=transform,
            num_microbatches=num_microbatches,
            frozen=frozen,
            gap=gap,
            shared=shared,
        )
        updates, opt_state = optimizer.update(grads, state.opt_state, state.model)
        model = optax.apply_updates(state.model, updates)
        metrics |= part_norms(grads) | {'grads/norm': optax.tree.norm(grads)}
        finite = jnp.isfinite(metrics['loss/total']) & jnp.isfinite(metrics['grads/norm'])
        metrics['grads/finite'] = finite.astype('float32')
        if skip_nonfinite:
            model, opt_state = jax.tree.map(
                lambda new, old: jnp.where(finite, new, old),
                (model, opt_state),
                (state.model, state.opt_state),
            )
        metrics['params/norm'] = optax.tree.norm(model)
        return TrainState(state.step + 1, model, opt_state), metrics

    return jax.jit(train_step, donate_argnames='state')
