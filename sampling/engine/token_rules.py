"""Token rules: functions of every token that is sampled, on the device; two slots of the config.

A logits rule (`sampling.logits`) changes the logits before the sampling method reads them. The
trainer applies the same function to the same tokens, so it recomputes the log-probabilities that
the sampler recorded. A pause rule (`sampling.pause`) says after which tokens a turn pauses, so that
the host can decide how it goes on (paused_turns.py).

A function applies to the turns of the roles in its attribute `roles`; without it, to the actor's.
The words in its attribute `words` are looked up in the run's vocabulary.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from elenchus.data.records import PLAYER_OF_ROLE, ROLES
from elenchus.data.text.token_words import ids_of_word
from elenchus.data.text.tokenizer import Tokenizer
from elenchus.sampling import user_functions
from elenchus.sampling.slots import Slot

ACTOR_ROLES = tuple(role for role, player in PLAYER_OF_ROLE.items() if player == 'actor')


class Place(NamedTuple):
    """Where tokens are; every field is [...] int32."""

    position: jax.Array  # index of the token in its sequence
    turn_position: jax.Array  # tokens of its turn before it, without the header
    role: jax.Array | None  # index of its role in ROLES; None: every token is of a rule's role


class Where(NamedTuple):
    """What a token rule gets besides logits: the places of the tokens, and ids of words."""

    position: jax.Array  # [...] int32, index of the token in its sequence
    turn_position: jax.Array  # [...] int32, tokens of its turn before it
    ids: Mapping[str, tuple[int, ...]]  # of each word of the function's attribute `words`
    newlines: tuple[int, ...]  # ids whose text contains a line break


@dataclasses.dataclass(frozen=True)
class TokenRule:
    """A function with the ids of its words; static under jit, so hashable."""

    function: Callable
    field: str
    roles: tuple[str, ...]
    ids: tuple[tuple[str, tuple[int, ...]], ...] = ()
    newlines: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Field, name and place of the function, for errors."""
        function = getattr(self.function, 'function', self.function)
        path, line = user_functions.location(function)
        return f'{self.field}: {user_functions.name_of(function)} ({path}:{line})'

    def where(self, place: Place) -> Where:
        """Returns the argument of the function for tokens at these places."""
        return Where(place.position, place.turn_position, dict(self.ids), self.newlines)

    def logits(self, logits: jax.Array, place: Place) -> jax.Array:
        """Returns the changed logits [..., V], float32; those of other roles stay as they are.

        Raises ValueError, naming the function, if it returns something else.
        """
        logits = logits.astype('float32')
        returned = self.function(logits, self.where(place))
        wanted = f'numbers of shape {list(logits.shape)}'
        self._check(returned, logits.shape, kinds='fiu', wanted=wanted)
        changed = jnp.asarray(returned).astype('float32')
        if place.role is None:
            return changed
        ids = jnp.asarray([ROLES.index(role) for role in self.roles])
        is_ruled = (place.role[..., None] == ids).any(axis=-1)
        return jnp.where(is_ruled[..., None], changed, logits)

    def pauses(self, token: jax.Array, logits: jax.Array, place: Place) -> jax.Array:
        """Returns whether a turn pauses after each token [...], which logits [..., V] predicted.

        Raises ValueError, naming the function, if it returns something else.
        """
        returned = self.function(token, logits.astype('float32'), self.where(place))
        wanted = f'booleans of shape {list(token.shape)}'
        self._check(returned, token.shape, kinds='b', wanted=wanted)
        return jnp.asarray(returned)

    def _check(self, returned, shape: tuple[int, ...], *, kinds: str, wanted: str) -> None:
        # jnp.asarray would accept lists and scalars too, but not in every traced program.
        dtype = getattr(returned, 'dtype', None)
        kind = 'f' if dtype == jnp.bfloat16 else getattr(dtype, 'kind', None)
        if kind is None or kind not in kinds or getattr(returned, 'shape', None) != shape:
            user_functions.refuse(self.function, returned, wanted, field=self.field)


def _never(token: jax.Array, logits: jax.Array, where: Where) -> jax.Array:
    """Returns False everywhere."""
    return jnp.zeros(token.shape, bool)


def _after_line(token: jax.Array, logits: jax.Array, where: Where) -> jax.Array:
    """Returns whether a token ends a line."""
    return (token[..., None] == jnp.asarray(where.newlines)).any(axis=-1)


LOGITS = Slot(
    '(logits [..., V], where) -> [..., V], in JAX', {'none': lambda logits, where: logits}
)
PAUSES = Slot(
    '(token [...], logits [..., V], where) -> booleans [...], in JAX',
    {'none': _never, 'line': _after_line},
)


def logits_rule(reference: str, tokenizer: Tokenizer, vocab_size: int) -> TokenRule | None:
    """Returns the rule of `sampling.logits`; None for 'none'.

    Raises ValueError for a word that is no token, and for a function that fails, or returns what
    is not finite, for logits of 0.
    """
    if reference == 'none':
        return None
    rule = _rule(LOGITS, reference, tokenizer, field='sampling.logits')
    for shape in ((2,), (2, 3)):
        tested = rule.logits(jnp.zeros((*shape, vocab_size)), _first_places(shape))
        if not (jnp.isfinite(tested) | jnp.isneginf(tested)).all() or jnp.isneginf(tested).all():
            user_functions.refuse(
                rule.function,
                jax.device_get(tested),
                'numbers, or -inf for tokens that are excluded, but not for all',
                field=rule.field,
            )
    return rule


def pause_rule(reference: str, tokenizer: Tokenizer, vocab_size: int) -> TokenRule | None:
    """Returns the rule of `sampling.pause`; None for 'none'. Raises ValueError as `logits_rule`."""
    if reference == 'none':
        return None
    rule = _rule(PAUSES, reference, tokenizer, field='sampling.pause')
    for shape in ((2,), (2, 3)):
        token = jnp.zeros(shape, 'int32')
        rule.pauses(token, jnp.zeros((*shape, vocab_size)), _first_places(shape))
    return rule


def _rule(slot: Slot, reference: str, tokenizer: Tokenizer, *, field: str) -> TokenRule:
    function = slot.find(reference, field)
    roles = _names(function, 'roles', field, default=ACTOR_ROLES)
    for role in roles:
        if role not in PLAYER_OF_ROLE:
            raise ValueError(
                f'{field}={reference!r}: its attribute roles={roles!r} has {role!r}; models write '
                f'{tuple(PLAYER_OF_ROLE)}'
            )
    words = _names(function, 'words', field, default=())
    named = f'{field}={reference!r}'
    ids = tuple((word, ids_of_word(tokenizer, word, named)) for word in words)
    return TokenRule(function, field, roles, ids, tuple(sorted(tokenizer.newline_ids)))


def _names(function: Callable, name: str, field: str, *, default: tuple[str, ...]) -> tuple:
    """Returns an attribute of a function that is a tuple of texts."""
    values = getattr(function, name, default)
    if not isinstance(values, (tuple, list)) or not all(isinstance(v, str) for v in values):
        raise ValueError(
            f'{field}: the attribute {name}={values!r} of '
            f'{user_functions.name_of(getattr(function, "function", function))} must be a tuple of '
            'texts'
        )
    return tuple(values)


def _first_places(shape: tuple[int, ...]) -> Place:
    count = jnp.arange(shape[-1], dtype='int32')
    return Place(*(jnp.broadcast_to(x, shape) for x in (count + 5, count)), role=None)
