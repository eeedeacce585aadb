"""Calls user functions once before a run begins, where their arguments are known already.

So a mistake in one is an error before anything is written, and not in its stage, hours later.
"""

import jax
import jax.numpy as jnp

from elenchus.data.records import Batch
from elenchus.sampling.exploration import round_changes
from elenchus.sampling.exploration.explorers import EXPLORERS
from elenchus.train.config import round_fields
from elenchus.train.config.functions import functions_of
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.input_transforms import READINGS, make_reader
from elenchus.train.loss_weights import REWEIGHTINGS, reweighed
from elenchus.train.replayed_texts import PENALTIES, penalties

SHAPE = (2, 16)  # of the batch, of which only shapes and dtypes are read
INTEGERS = ('tokens', 'steps', 'turns', 'roles', 'positions', 'segments')


def check_first_calls(s: RunSettings) -> None:
    """Raises ValueError, naming the field, where a first call fails or returns what it may not.

    Functions of a fit are traced and compute nothing. A controller is called for the first round,
    with one candidate if it wants candidates.
    """
    batch = Batch(**{name: _array(name in INTEGERS) for name in Batch._fields})
    for named in functions_of(s):
        if named.slot is READINGS:
            reader = make_reader(named.reference, seed=0, num_steps=1)
            jax.eval_shape(reader, batch, jax.ShapeDtypeStruct((), jnp.int32))
        elif named.slot is REWEIGHTINGS:
            jax.eval_shape(
                lambda batch, values, reference=named.reference: reweighed(
                    reference, batch, logprobs=values, entropy=values
                ),
                batch,
                _array(False),
            )
        elif named.slot is PENALTIES:
            states = jax.ShapeDtypeStruct((*SHAPE, 4), jnp.float32)
            jax.eval_shape(
                lambda hidden, mask, reference=named.reference: penalties(
                    reference, hidden, hidden, mask=mask
                ),
                states,
                _array(False),
            )
    if set(s.stages) & set(EXPLORERS):
        knobs = {'temperature': s.sampling.temperature, 'threshold': s.improve.threshold}
        tries = round_changes.tries_candidates(s.improve.controller)
        figures = {'balance': 0.5}
        if round_changes.worth_of(s.improve.controller):
            figures['worth'] = 0.5
        round_fields.changed_by_controller(
            {'improve': s.improve, 'sampling': s.sampling},
            (),
            number=1,
            candidates=[knobs | figures] if tries else [],
            num_problems=s.data.num_train,
        )


def _array(is_integer: bool) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(SHAPE, jnp.int32 if is_integer else jnp.float32)
