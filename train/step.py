"""The train step: one jitted function for every objective."""

import collections
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from elenchus.data.records import Batch
from elenchus.model import logprobs as logprobs_lib
from elenchus.model import lora, placement
from elenchus.model.attention.inputs import SharedPrompt
from elenchus.model.transformer import Transformer
from elenchus.sampling.engine.token_rules import Place
from elenchus.train.expert_balance import with_expert_balance
from elenchus.train.master_weights import to_float32
from elenchus.train.objective import Objective, Sums, batch_totals, loss
from elenchus.train.state import TrainState

Transform = Callable[..., jax.Array]
"""Function of logits [..., V], for example temperature and top-k of the sampling method.

One with the attribute `reads_places` is called as transform(logits, Place of each token [...])."""

Reader = Callable[[Batch, jax.Array], jax.Array]
"""(batch, steps taken) -> the tokens that the model reads, [B, T]."""

ExtraLoss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
"""(model or adapters, inputs, frozen base or None) -> (a loss that is added, metrics)."""

TokenNumbers = Callable[..., tuple[jax.Array, jax.Array]]
"""(model, hidden [B, T, D], tokens [B, T], transform=, place=) -> two numbers of each token [B, T].

The first is what the loss is of: a log-probability, or a value. The second is its entropy."""

STEP_AXES = dict.fromkeys(('batch', 'extra'), placement.ROWS)
"""How the arrays that a step reads lie: by row."""

IDENTITY: Transform = lambda logits: logits  # noqa: E731
"""Transform of the plain likelihood; one object, so that jit compiles once."""


def batch_logprobs(model: Transformer, batch: Batch, transform: Transform, **options):
    """Returns (log-probabilities, entropies), both [B, T], of a batch's own tokens.

    `options` are those of `read_batch`.
    """
    return read_batch(model, batch, transform, **options)[0]


def read_batch(
    model: Transformer,
    batch: Batch,
    transform: Transform,
    *,
    shared: SharedPrompt | None = None,
    read: jax.Array | None = None,
    numbers: TokenNumbers = logprobs_lib.token_logprobs,
):
    """Returns ((log-probabilities, entropies), use of experts [L, E] or None without any).

    The first two, [B, T], are of the batch's own tokens. They are 0 at the first token of every
    (packed) sequence, which nothing predicts, and on prompts that samples share (`shared`). `read`
    [B, T]: tokens that the model reads in place of the batch's. `numbers`: another function of
    hidden states than log-probabilities, such as values.
    """
    inputs = batch.tokens if read is None else read
    hidden, use = model(inputs, batch.positions, segments=batch.segments, shared=shared)
    tokens = batch.tokens
    place = places_of(batch) if getattr(transform, 'reads_places', False) else None
    if shared is not None:
        # Logits of the responses only; each response starts after the last token of its prompt.
        hidden, tokens, place = jax.tree.map(
            lambda x: shared.split_samples(x)[:, shared.prompt - 1 :], (hidden, tokens, place)
        )
    values = numbers(model, hidden, tokens, transform=transform, place=place)
    if shared is not None:
        before = ((0, 0), (shared.prompt - 1, 0))
        values = [shared.join_samples(jnp.pad(x, before)) for x in values]
    return tuple(jnp.where(batch.positions > 0, x, 0.0) for x in values), use


def places_of(batch: Batch) -> Place:
    """Returns the places [B, T] of a batch's tokens, for logits rules; arbitrary outside of steps.

    The body of a turn is a run of tokens with step ids, so it begins where such a run begins. A
    prompt that samples share has no trained turn.
    """
    in_steps = batch.steps > 0
    before = [jnp.pad(x[:, :-1], ((0, 0), (1, 0))) for x in (in_steps, batch.turns, batch.segments)]
    same_turn = before[0] & (before[1] == batch.turns) & (before[2] == batch.segments)
    index = jnp.broadcast_to(jnp.arange(in_steps.shape[1], dtype='int32'), in_steps.shape)
    start = jax.lax.cummax(jnp.where(in_steps & ~same_turn, index, 0), axis=1)
    return Place(jnp.asarray(batch.positions), index - start, jnp.asarray(batch.roles))


def loss_and_grads(
    model: Transformer | lora.Adapters,
    batch: Batch,
    *,
    objective: Objective,
    transform: Transform,
    num_microbatches: int,
    frozen: Transformer | None = None,
    measure_gap: bool = False,
    shared: SharedPrompt | None = None,
    read: jax.Array | None = None,
    numbers: TokenNumbers = logprobs_lib.token_logprobs,
):
    """Returns (loss, grads, metrics) of a batch; the number of microbatches does not change them.

    The exception is the balance loss of experts, which is a mean over microbatches.

    `model` is a whole model, or adapters whose base is `frozen`; gradients are of `model` only.
    With `measure_gap` the metrics have the difference between the model's log-probabilities and the
    batch's old ones. `read`, `numbers`: as in `read_batch`. Raises ValueError if the microbatches
    do not divide the rows.
    """

    totals = batch_totals(objective, batch)

    def total_and_sums(model, part):
        micro, read = part
        joined = lora.join(model, frozen)
        values, use = read_batch(
            joined, micro, transform, shared=shared, read=read, numbers=numbers
        )
        logprobs, entropy = values
        sums = loss(objective, micro, logprobs=logprobs, entropy=entropy, totals=totals)
        if use is not None:
            sums = with_expert_balance(sums, use, coef=joined.config.balance_coef)
        return sums.total, with_sampler_gap(sums, micro, logprobs) if measure_gap else sums

    value_and_grad = jax.value_and_grad(total_and_sums, has_aux=True)
    if num_microbatches == 1:
        (_, sums), grads = value_and_grad(model, (batch, read))
    else:
        sums, grads = _in_microbatches(value_and_grad, model, (batch, read), count=num_microbatches)
    # Divide once, at the end: a mean of microbatch means would weight their tokens unequally.
    weight = jnp.maximum(sums.weight, 1e-8)
    grads = jax.tree.map(lambda g: g / weight.astype(g.dtype), grads)
    means = {name: x / jnp.maximum(sums.tokens, 1.0) for name, x in sums.metrics.items()}
    total = sums.total / weight
    return total, grads, means | sums.maxima | {'loss/total': total, 'loss/tokens': sums.tokens}


def with_sampler_gap(sums: Sums, batch: Batch, logprobs: jax.Array) -> Sums:
    """Adds metrics of |logprobs - batch.old_logprobs| [B, T] over the loss tokens.

    The old log-probabilities are the sampler's here; a large gap means that sampler and trainer
    compute different distributions.
    """
    known = (batch.loss_mask > 0) & jnp.isfinite(logprobs)
    gaps = jax.lax.stop_gradient(jnp.where(known, jnp.abs(logprobs - batch.old_logprobs), 0.0))
    return sums._replace(
        metrics=sums.metrics | {'sampler/gap': jnp.sum(gaps * batch.loss_mask)},
        maxima=sums.maxima | {'sampler/gap_max': jnp.max(gaps)},
    )


def _in_microbatches(value_and_grad, model, rows, *, count: int):
    """Returns (Sums, grads) of a tree of arrays [B, ...], of `count` parts one after the other."""
    size = jax.tree.leaves(rows)[0].shape[0]
    if size % count:
        raise ValueError(f'num_microbatches={count} does not divide {size} rows')
    # Row i goes to microbatch i % n: every microbatch then has rows on every data shard.
    split = jax.tree.map(lambda x: x.reshape(-1, count, *x.shape[1:]).swapaxes(0, 1), rows)

    def accumulate(carry, part):
        (_, sums), grads = value_and_grad(model, part)
        return _add(carry, (sums, grads)), None

    first = jax.tree.map(lambda x: x[0], split)
    (_, shapes), grad_shapes = jax.eval_shape(value_and_grad, model, first)
    zeros = jax.tree.map(lambda s: jnp.zeros(s.shape, 'float32'), (shapes, grad_shapes))
    return jax.lax.scan(accumulate, zeros, split)[0]


def _add(carry, new):
    """Adds the (Sums, grads) of a microbatch to those of the earlier ones, in float32."""
    added = jax.tree.map(lambda s, x: s + x.astype(s.dtype), carry, new)
    largest = jax.tree.map(jnp.maximum, carry[0].maxima, new[0].maxima)
    return added[0]._replace(maxima=largest), added[1]


def _with_extra_loss(extra_loss: ExtraLoss | None, inputs: tuple, values: tuple):
    """Returns the values, (gradients, metrics), with those of one more loss, if there is one."""
    if extra_loss is None:
        return values
    grads, metrics = values
    (added, more), added_grads = jax.value_and_grad(extra_loss, has_aux=True)(*inputs)
    grads = jax.tree.map(lambda g, a: g + a.astype(g.dtype), grads, added_grads)
    return grads, metrics | more | {'loss/total': metrics['loss/total'] + added}


def part_norms(grads: Transformer) -> dict[str, jax.Array]:
    """Returns the gradient norm of each part of the model: 'grads/attention', 'grads/mlp', ..."""
    squares = collections.defaultdict(list)
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads):
        names = [key.name for key in path if hasattr(key, 'name') and key.name != 'blocks']
        squares[names[0]].append(jnp.sum(jnp.square(leaf.astype('float32'))))
    return {f'grads/{part}': jnp.sqrt(sum(values)) for part, values in squares.items()}


def make_train_step(
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    transform: Transform,
    num_microbatches: int,
    skip_nonfinite: bool,
    measure_gap: bool = False,
    shared: SharedPrompt | None = None,
    read: Reader | None = None,
    extra_loss: ExtraLoss | None = None,
    numbers: TokenNumbers = logprobs_lib.token_logprobs,
):
    """Returns train_step(state, batch, frozen) -> (state, metrics), compiled; donates the state.

    The metric `grads/finite` is 1 if loss and gradients are finite. If they are not, and
    `skip_nonfinite` is set, weights and optimizer state stay unchanged. `frozen` is the base
    of a state of adapters, None if the state is a whole model. `shared`: layout of rows whose
    samples share a prompt. `read`: (batch, steps taken) -> tokens [B, T] that the model reads in
    place of the batch's. `extra_loss`: a function of the step's argument `extra`, whose loss is
    added. `measure_gap`, `numbers`: as in `loss_and_grads`.
    """

    def train_step(state: TrainState, batch: Batch, frozen=None, *, extra=None):
        _, grads, metrics = loss_and_grads(
            state.model,
            batch,
            objective=objective,
            transform=transform,
            num_microbatches=num_microbatches,
            frozen=frozen,
            measure_gap=measure_gap,
            shared=shared,
            read=read(batch, state.step) if read else None,
            numbers=numbers,
        )
        inputs = (state.model, extra, frozen)
        grads, metrics = _with_extra_loss(extra_loss, inputs, (grads, metrics))
        updates, opt_state = optimizer.update(grads, state.opt_state, state.model)
        model = optax.apply_updates(state.model, updates)
        metrics |= part_norms(grads) | {'grads/norm': optax.tree.norm(to_float32(grads))}
        finite = jnp.isfinite(metrics['loss/total']) & jnp.isfinite(metrics['grads/norm'])
        metrics['grads/finite'] = finite.astype('float32')
        if skip_nonfinite:  # a select, not a branch: the step stays one compiled program
            new, old = (model, opt_state), (state.model, state.opt_state)
            model, opt_state = jax.tree.map(lambda x, y: jnp.where(finite, x, y), new, old)
        metrics['params/norm'] = optax.tree.norm(to_float32(model))
        return TrainState(state.step + 1, model, opt_state), metrics

    return placement.pinned_jit(train_step, donate_argnames='state', axes=STEP_AXES)
