"""Errors inside a user's function: each slot names field, function, file and line, in one line."""

import dataclasses
import functools
import types

import jax.numpy as jnp
import numpy as np
import pytest

from elenchus.data import records
from elenchus.data.critiques import grammars
from elenchus.data.text import tokenizer
from elenchus.data.tools import call_forms
from elenchus.sampling import paused_turns, slots, tools
from elenchus.sampling.critique_data import splices
from elenchus.sampling.engine import token_rules
from elenchus.sampling.engine.token_rules import Place
from elenchus.sampling.metrics import measures
from elenchus.train import loss_weights, response_weights
from elenchus.train.rl import advantages, credit, rewards
from tests.support import method_cases

LAB = tokenizer.lab_tokenizer()
VOCABULARY = LAB.vocab_size
TURN = records.Turn('attempt', (6,), (11, 12, 13), steps=(records.Step(3, 0.5),))


def reward(reference):
    fields = dict.fromkeys(('correct', 'format', 'length', 'steps', 'verdict'), 0.0)
    settings = rewards.ActorRewards(**fields, functions=((reference, 1.0),))
    return rewards.terms(settings, method_cases.turns({}, {}))


def context_of(**fields):
    settings = types.SimpleNamespace(**fields)
    columns = [method_cases.turns({}, {})]
    return advantages.GroupContext(settings, columns, np.zeros((2, 1)), 0.0, {})


def outcome(reference):
    return credit._outcome_advantages(np.zeros((2, 1)), reference, context_of)


def steps(reference):
    group = [records.Episode('p', 1, (TURN,))] * 2
    context = context_of(
        steps=reference, step_coef=1.0, unreached='zero', shuffle_scores=False, epsilon=1.0
    )
    credit._add_step_advantages(group, [{1: np.zeros(1, np.float32)}] * 2, context, seed=0)


def weighting(reference):
    return response_weights.response_weights(TURN, weighting=reference, success_rate=0.5)


def reweigh(reference):
    zeros = jnp.zeros((2, 3))
    batch = records.Batch(*[zeros] * len(records.Batch._fields))
    return loss_weights.reweighed(reference, batch, logprobs=zeros, entropy=zeros)


def pause(reference):
    rule = token_rules.pause_rule(reference, LAB, VOCABULARY)
    at = jnp.zeros(2, 'int32')
    return rule.pauses(at, jnp.zeros((2, VOCABULARY)), Place(at, at, None))


def after_pause(reference):
    function = paused_turns.AFTER_PAUSES.find(reference, paused_turns.FIELD)
    writing = paused_turns._Writing('attempt', None, [11], [0.0], [])
    chat = types.SimpleNamespace(
        sampled_turn=lambda role, tokens, logprobs, tools: TURN, text=lambda turn: '', end_id=1
    )
    return paused_turns.Writer(chat, None, function, 9)._decide(writing, None)


def tool(reference):
    values = (('calculator',), 'tags', ('attempt',), 1, 1.0, 16, 99, (), 'filter', 1)
    settings = dataclasses.replace(tools.ToolSettings(*values), use=(reference,))
    name = settings.name_of(reference)
    return tools.Toolbox(settings).answer([call_forms.Call(name, 'text')])


def splice(reference):
    return splices.splice(reference, [], method_cases.PROBLEM, grammar=grammars.LAB)


def logits(reference):
    return token_rules.logits_rule(reference, LAB, VOCABULARY)


def measure(reference):
    return measures.measure([reference], [], str)


def condition(reference):
    return measures.guide(reference, method_cases.PROBLEM)


SLOTS = {
    # slot: (caller, field, arguments, a right reply)
    'reward': (reward, 'rewards.functions', 'turns', '[0.0, None]'),
    'outcome': (outcome, 'advantage.outcome', 'returns, context', 'returns'),
    'steps': (steps, 'advantage.steps', 'scores, context', '[[0.0], [1]]'),
    'weighting': (weighting, 'improve.weighting', 'turn, rate', '[1, 0, NAN]'),
    'reweigh': (reweigh, 'reweigh', 'logprobs, entropy, batch', '0.5'),
    'pause': (pause, 'sampling.pause', 'token, logits, where', 'token > 3'),
    'after_pause': (after_pause, 'sampling.after_pause', 'text, pause', 'True'),
    'tool': (tool, 'sampling.tools.use', 'text', '"text"'),
    'logits': (logits, 'sampling.logits', 'logits, where', 'logits'),
    'measure': (measure, 'evaluate.measures', 'groups, read', '{"a": NAN}'),
    'splice': (splice, 'self_talk.splice', 'lines, problem', '"text"'),
    'condition': (condition, 'evaluate.conditions', 'problem', '"text"'),
}
REPLIES = {
    'reward': ['1.0', '[1.0]', '[1.0, "x"]', '["1", "2"]', '[[1.0], [2.0]]'],
    'outcome': ['1.0', '[[1.0]]', '[["1"], ["2"]]', '[[1], [None]]'],
    'steps': ['[[0.0]]', '[0, 0]', '[["1"], ["2"]]', '[[1j], [1j]]'],
    'weighting': ['1.0', '["1", "2", "3"]', '[1, [2], 3]', '[1e999, 0, 0]'],
    'reweigh': ['jnp.ones(2)', '[0.5]'],
    'pause': ['token', 'True'],
    'after_pause': ['1', '""'],
    'tool': ['1', 'b"text"', 'None'],
    'logits': ['logits[0]', '1.0'],
    'measure': ['1.0', '{"a": "b"}', '{"a": None}', '{"a": 1e999}'],
    'splice': ['1', '" "'],
    'condition': ['1', 'b"text"'],
}
NAN_IS_WRONG = {
    'reward': '[NAN, 0.0]',
    'outcome': 'returns * NAN',
    'steps': '[[NAN], [0.0]]',
    'logits': 'logits * NAN',
}
RAISES = {
    'ZeroDivisionError: division by zero': '1 / 0',
    'SystemExit: 0': '__import__("sys").exit(0)',
    "KeyError: 'x'": '{}["x"]',
    'Strange: a b': 'fail()',
    'AttributeError': 'None.x',
}
HEAD = """import jax.numpy as jnp

NAN = float('nan')


class Strange(Exception):
    pass


def fail():
    raise Strange('a\\n  b')


"""
LINE = HEAD.count('\n') + 1


@pytest.fixture
def call(tmp_path):
    """call(slot, body, arguments) calls a function of a file of its own through its slot."""
    count = iter(range(100))

    def call(slot, body, arguments=None):
        folder = tmp_path / str(next(count))
        folder.mkdir()
        caller, _, names, _ = SLOTS[slot]
        arguments = names if arguments is None else arguments
        source = f'{HEAD}def mine({arguments}):\n    x = {body}\n    return x\n'
        (folder / 'mine.py').write_text(source)
        return caller(f'{folder}/mine.py:mine')

    yield call
    slots.load.cache_clear()


def message_of(call, *arguments):
    with pytest.raises(ValueError) as error:
        call(*arguments)
    text = str(error.value)
    assert '\n' not in text
    return text


@pytest.mark.parametrize('slot', SLOTS)
def test_a_right_reply_is_taken(call, slot):
    call(slot, SLOTS[slot][3])


@pytest.mark.parametrize('slot', SLOTS)
def test_what_a_function_raises_is_named_with_its_line(call, slot):
    for expected, body in RAISES.items():
        text = message_of(call, slot, body)
        assert SLOTS[slot][1] in text
        assert ': mine (' in text and f'raised {expected}' in text
        # The line that raised, in whatever function of the file it is.
        line = 11 if 'Strange' in expected else LINE + 1
        assert f'mine.py:{line})' in text, text


@pytest.mark.parametrize('slot', SLOTS)
def test_other_arguments_are_named_with_those_of_the_slot(call, slot):
    text = message_of(call, slot, '0', 'only_this_one_and, x, y, z')
    assert 'raised TypeError' in text and f'mine.py:{LINE})' in text
    assert 'it is called as (' in text


@pytest.mark.parametrize('slot', SLOTS)
def test_other_replies_are_named_with_what_is_wanted(call, slot):
    field, replies = SLOTS[slot][1], REPLIES[slot]
    bad = [NAN_IS_WRONG[slot]] if slot in NAN_IS_WRONG else []
    for reply in ('None', 'object()', '"text"', *replies, *bad):
        if reply == '"text"' and slot in ('condition', 'after_pause', 'splice', 'tool'):
            continue  # a text is right there
        text = message_of(call, slot, reply)
        assert field in text and 'mine (' in text and f'mine.py:{LINE}) returned' in text, text
        assert 'it must return' in text


def test_every_slot_is_in_the_table():
    """Those of round controllers are in tests/train/stages/test_round_settings.py."""
    known = {
        *(rewards.REWARDS, advantages.OUTCOMES, advantages.STEPS, response_weights.WEIGHTINGS),
        *(loss_weights.REWEIGHTINGS, token_rules.LOGITS, token_rules.PAUSES, tools.TOOLS),
        *(paused_turns.AFTER_PAUSES, measures.MEASURES, measures.CONDITIONS, splices.SPLICES),
    }
    assert len(known) == len(SLOTS)


def test_what_a_generator_raises_is_named_too(call):
    text = message_of(call, 'reward', '(1 / 0 for turn in turns)')
    assert 'rewards.functions: mine (' in text and 'raised ZeroDivisionError' in text
    call('reward', '(0.5 for turn in turns)')


def test_an_update_is_named_too(tmp_path):
    path = tmp_path / 'mine.py'
    source = 'def mine(returns, context):\n    return returns\n\n\ndef update(returns, context):\n'
    for body, expected in (
        ('    return 1 / 0', 'raised ZeroDivisionError'),
        ('    return None', 'returned None; it must return a dict'),
    ):
        path.write_text(f'{source}{body}\n\n\nmine.update = update\n')
        with pytest.raises(ValueError, match=f'advantage.outcome: update .*mine.py:.*{expected}'):
            outcome(f'{path}:mine')
        slots.load.cache_clear()
        path = path.with_name(f'a{path.name}')


def test_a_file_that_raises_anything_is_named(tmp_path):
    (tmp_path / 'mine.py').write_text('class Odd(Exception): pass\nraise Odd("late\\nnight")\n')
    with pytest.raises(
        ValueError, match=r'mine.py cannot be imported \(Odd: late night\)'
    ) as error:
        rewards.REWARDS.find(f'{tmp_path}/mine.py:f', 'reinforce.rewards.functions')
    assert '\n' not in str(error.value)


def test_partials_instances_and_wrapped_functions_have_places_and_attributes(tmp_path):
    (tmp_path / 'mine.py').write_text(
        'import functools\n\n\ndef base(x, y):\n    return x / y\n\n\nbase.words = ("a",)\n'
        'part = functools.partial(base, y=0)\n\n\nclass Rule:\n    def __call__(self, x):\n'
        '        return x.y\n\n\ninstance = Rule()\n'
    )
    slot = slots.Slot('(x) -> number', {})
    part = slot.find(f'{tmp_path}/mine.py:part', 'a.b')
    assert part.words == ('a',) and not hasattr(part, 'roles')
    with pytest.raises(ValueError, match=r'a\.b: base \(.*mine\.py:5\) raised ZeroDivisionError'):
        part(1)
    instance = slot.find(f'{tmp_path}/mine.py:instance', 'a.b')
    with pytest.raises(ValueError, match=r'a\.b: Rule \(.*mine\.py:14\) raised AttributeError'):
        instance(1)
    built_in = slot.find('math:floor', 'a.b')
    with pytest.raises(ValueError, match=r'a\.b: floor \(built in:0\) raised TypeError.*called as'):
        built_in('x')


def test_a_function_is_one_object_for_each_field(tmp_path):
    """Static under jit: another object would compile anew."""
    (tmp_path / 'mine.py').write_text('def f(x):\n    return x\n')
    slot = slots.Slot('(x) -> number', {})
    find = functools.partial(slot.find, f'{tmp_path}/mine.py:f')
    assert find('a.b') is find('a.b') and find('a.b') is not find('a.c')
