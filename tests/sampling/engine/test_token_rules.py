"""Rules of logits and of pauses: the sampler and the trainer's pass apply the same function."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data.records import ROLES, Batch
from elenchus.data.text import tokenizer
from elenchus.model import placement, sharding
from elenchus.sampling.engine import engine, sampling_methods, token_rules
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.token_rules import Place, TokenRule
from elenchus.train import step
from elenchus.train.rl.logprobs import make_logprobs
from tests.support import tiny_model
from tests.support.compilations import count_compilations

EOS, LENGTH = 1, 32
CONFIG = dataclasses.replace(tiny_model.FLAT, vocab_size=64, max_length=LENGTH)
PLAIN = sampling_methods.TemperatureSampling(0.8, 30, 0.95, 0.0, banned=(0, EOS))
ENGINE = engine.EngineSettings(
    num_slots=4,
    max_length=LENGTH,
    chunk_steps=4,
    prompt_buckets=(16,),
    prefill_batch_sizes=(4,),
    decode_batch_sizes=(),
    decode_cache_lengths=(),
)
WAVED = (7, 9)


def wave(logits, where):
    """CyclicReflex's triangle on some tokens, and one that counts from the sequence's begin."""
    phase = where.turn_position % 8 / 8
    triangle = 1 - 4 * jnp.abs((phase + 0.25) % 1 - 0.5)
    logits = logits.at[..., list(WAVED)].add(6 * triangle[..., None])
    return logits.at[..., 11].add(0.5 * (where.position % 3))


RULE = TokenRule(wave, 'sampling.logits', ('attempt', 'refinement'))
RULED = sampling_methods.with_rules(PLAIN, RULE, None)
PROMPTS = [tuple(range(20, 20 + n)) for n in (3, 9, 5, 7, 4, 12)]
OPENINGS = (0, 4, 0, 2, 3, 11)


@functools.cache
def model():
    return jax.device_get(tiny_model.make_model(CONFIG))


def requests():
    return [
        Request(i, PROMPTS[i // 2], 14 - i % 3, opening=OPENINGS[i // 2])
        for i in range(2 * len(PROMPTS))
    ]


def generate(method=RULED, *, placed=None, **changes):
    sampler = engine.Engine(dataclasses.replace(ENGINE, **changes), stop_ids=(EOS,))
    return sampler.with_prefix_cache().generate(
        placed or model(), requests(), method=method, seed=3
    )


def batch_of(completions):
    """One sequence a row: a question, then a turn of the actor that begins with its opening."""
    fields = {name: np.zeros((len(completions), LENGTH), np.int32) for name in Batch._fields}
    for row, (request, completion) in enumerate(zip(requests(), completions, strict=True)):
        tokens = (*request.prompt, *completion.tokens)
        start, end = len(request.prompt) - request.opening, len(tokens)
        fields['tokens'][row, :end] = tokens
        fields['positions'][row, :end] = np.arange(end)
        fields['segments'][row, :end] = 1
        fields['turns'][row, :end] = 1 + (np.arange(end) >= start)
        fields['steps'][row, start:end] = 1 + (np.arange(end - start) > 4)
        fields['roles'][row, :end] = ROLES.index('question')
        fields['roles'][row, start:end] = ROLES.index('attempt')
    return Batch(**fields)


def gaps(completions, method=RULED, mesh=None):
    batch = batch_of(completions)
    logprobs = make_logprobs(transform=method.transform, shared=None, rows=4)
    if mesh is None:
        recomputed = logprobs(model(), batch)
    else:
        with jax.set_mesh(mesh):
            recomputed = logprobs(placement.current().place(model()), batch)
    return [
        np.abs(np.array(c.logprobs) - recomputed[row, len(r.prompt) :][: len(c.tokens)]).max()
        for row, (r, c) in enumerate(zip(requests(), completions, strict=True))
    ]


def test_the_trainer_recomputes_what_the_sampler_recorded():
    completions = generate()
    assert max(gaps(completions)) < 1e-5
    # Without the rule, or with another begin of the turn, it does not.
    assert max(gaps(completions, PLAIN)) > 0.1
    assert [c.tokens for c in completions] != [c.tokens for c in generate(PLAIN)]


@pytest.mark.slow
def test_the_likely_tokens_are_those_of_the_rule():
    greedy = sampling_methods.greedy_of(RULED)
    completions = generate(greedy)
    assert max(gaps(completions, greedy)) < 1e-5
    plain = generate(sampling_methods.greedy_of(PLAIN))
    assert [c.tokens for c in completions] != [c.tokens for c in plain]


@pytest.mark.slow
def test_drafts_and_prefix_caches_sample_the_same_tokens():
    expected = [c.tokens for c in generate()]
    drafted = generate(draft_tokens=3, draft_ngram=2)
    assert [c.tokens for c in drafted] == expected
    cached = generate(prefix_cache_rows=4, prefix_cache_length=16, chunk_steps=3)
    assert [c.tokens for c in cached] == expected


def test_a_rule_compiles_once_and_other_objects_of_it_not_again():
    generate(RULED)
    again = sampling_methods.with_rules(dataclasses.replace(PLAIN), dataclasses.replace(RULE), None)
    with count_compilations() as events:
        generate(again)
    assert not events


@pytest.mark.slow
@pytest.mark.parametrize(
    'shape',
    [
        (2, 1, 1),
        (1, 2, 1),
        (1, 1, 2),
    ],
    ids=str,
)
def test_two_devices_sample_and_score_as_one(shape):
    kinds = (jax.sharding.AxisType.Auto,) * len(shape)
    mesh = jax.make_mesh(shape, sharding.AXES, devices=jax.devices()[:2], axis_types=kinds)
    expected = generate()
    with jax.set_mesh(mesh):
        completions = generate(placed=placement.current().place(model()))
    assert [c.tokens for c in completions] == [c.tokens for c in expected]
    assert max(gaps(completions, mesh=mesh)) < 1e-5


def test_a_turn_that_goes_on_counts_from_its_begin():
    """Stopped at any token and continued as an opening, a turn is the turn in one piece."""
    sampler = engine.Engine(ENGINE, stop_ids=(EOS,))
    (whole,) = sampler.generate(model(), [Request(5, PROMPTS[0], 12)], method=RULED, seed=3)
    for count in (1, 4, 11):
        prompt = PROMPTS[0] + whole.tokens[:count]
        rest = Request(5, prompt, 12 - count, opening=count)
        (completion,) = sampler.generate(model(), [rest], method=RULED, seed=3)
        assert whole.tokens[:count] + completion.tokens == whole.tokens


def test_the_place_of_a_token_in_packed_rows_counts_within_its_turn():
    steps = np.array([[0, 0, 1, 1, 2, 0, 1, 1, 0, 1, 2, 0]])
    turns = np.array([[1, 2, 2, 2, 2, 3, 3, 3, 1, 1, 1, 0]])
    segments = np.array([[1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 0]])
    fields = dict.fromkeys(Batch._fields, np.zeros((1, 12), np.int32))
    batch = Batch(**fields | {'steps': steps, 'turns': turns, 'segments': segments})
    place = step.places_of(batch)
    counted = np.where(steps > 0, place.turn_position, -1)
    assert counted.tolist() == [[-1, -1, 0, 1, 2, -1, 0, 1, -1, 0, 1, -1]]


def test_turns_without_headers_between_them_begin_where_the_turn_changes():
    steps, turns = np.array([[1, 1, 1, 2]]), np.array([[1, 1, 2, 2]])
    fields = dict.fromkeys(Batch._fields, np.zeros((1, 4), np.int32))
    place = step.places_of(Batch(**fields | {'steps': steps, 'turns': turns}))
    assert place.turn_position.tolist() == [[0, 1, 0, 1]]


def test_a_rule_leaves_turns_of_other_roles_as_they_are():
    roles = jnp.array([ROLES.index(role) for role in ('critique', 'attempt', 'refinement')])
    logits = jnp.arange(3 * 64.0).reshape(3, 64)
    at = jnp.full(3, 2)
    changed = RULE.logits(logits, Place(at, at, roles))
    np.testing.assert_array_equal(changed[0], logits[0])
    assert (changed[1:] != logits[1:]).any(axis=-1).all()
    assert sampling_methods.of_role(RULED, 'critique', pauses=True) is PLAIN
    assert sampling_methods.of_role(RULED, 'attempt', pauses=True) == RULED


@pytest.mark.parametrize(('phase', 'height'), [(0, 0), (2, 6), (6, -6)])
def test_the_wave_of_the_paper_at_its_quarters(phase, height):
    at = jnp.array([phase])
    changed = wave(jnp.zeros((1, 64)), token_rules.Where(at * 0, at, {}, ()))
    assert changed[0, WAVED[0]] == height and changed[0, 8] == 0


# Pauses


def after_seven(token, logits, where):
    """Ends a turn at a position of the turn, or when a token's probability is high."""
    sure = jax.nn.softmax(logits)[..., 30] > 0.03
    return (where.turn_position >= 7) | sure


PAUSING = sampling_methods.with_rules(
    PLAIN, RULE, TokenRule(after_seven, 'sampling.pause', ('attempt',))
)


def test_a_pause_ends_a_completion_at_the_first_token_of_the_rule():
    completions = generate(PAUSING)
    for request, paused, whole in zip(requests(), completions, generate(), strict=True):
        count = len(paused.tokens)
        assert paused.tokens == whole.tokens[:count] and not paused.finished
        assert count <= max(1, 8 - request.opening)
    assert len({len(c.tokens) for c in completions}) > 2
    assert [c.tokens for c in generate(PAUSING, draft_tokens=3, draft_ngram=2)] == [
        c.tokens for c in completions
    ]


# Words and functions at the border


LAB = tokenizer.lab_tokenizer()
VOCABULARY = LAB.vocab_size + 3


def rule_of(source, tmp_path, slot='logits'):
    path = tmp_path / 'mine.py'
    path.write_text(f'import jax.numpy as jnp\n{source}')
    make = token_rules.logits_rule if slot == 'logits' else token_rules.pause_rule
    return make(f'{path}:f', LAB, VOCABULARY)


def test_words_are_tokens_of_the_vocabulary(tmp_path):
    source = 'def f(logits, where):\n    return logits\nf.words = ("correct", "</s>", "7", "####")'
    ids = dict(rule_of(source, tmp_path).ids)
    assert {w: [LAB.decode([i]) for i in ids[w]] for w in ('correct', '7', '####')} == {
        'correct': ['correct'],
        '7': ['7'],
        '####': ['####'],
    }
    assert ids['</s>'] == (LAB.eos_id,)


@pytest.mark.parametrize(
    ('source', 'message'),
    [
        ('f.words = ("corect",)', "'corect' is no single token.*nearest: 'correct'"),
        ('f.words = ("correct wrong",)', r"it is the tokens \['correct', 'wrong'\]"),
        ('f.words = "correct"', "words='correct' of f must be a tuple of texts"),
        ('f.roles = ("player",)', "roles=.* has 'player'; models write"),
    ],
)
def test_attributes_of_a_rule_are_checked(tmp_path, source, message):
    with pytest.raises(ValueError, match=f'(?s)sampling.logits.*{message}'):
        rule_of(f'def f(logits, where):\n    return logits\n{source}', tmp_path)
