"""Texts that players write on request: one request after the other, and what has no room."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elenchus.data.text.prompts import Prompt, Prompts
from elenchus.sampling import writing
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.writing import Notes
from tests.support import fake_engine

METHOD = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
PROBLEMS = fake_engine.problems(4)


def digit(request, seed=None):
    """An answer that depends on the request's id and text."""
    return f'#### {(7 * request.id + len(request.texts["question"])) % 10}'


def engine_of(answer=digit):
    return fake_engine.AnsweringEngine(answer)


def write(function, items, *, engine=None, room=None, first=0, chat=None):
    models = dataclasses.replace(fake_engine.players(engine or engine_of()), actor='A', critic='C')
    if chat is not None:
        models = dataclasses.replace(models, sampler=dataclasses.replace(models.sampler, chat=chat))
    spec = SampleSpec(1, METHOD, 3, first)
    return writing.write(models, function, items, spec=spec, room=room, field='the.field')


def items_of(problems=PROBLEMS):
    return [(problem, Notes(number=i)) for i, problem in enumerate(problems)]


def twice(problem, notes):
    """Asks as often as the number of the round, and returns all that was written."""
    if len(notes.written) < notes.number:
        return [f'{problem.question} {" ".join(notes.written)}'.strip()]
    return notes.written


def test_each_answer_is_in_the_notes_of_the_next_call():
    engine = engine_of()
    results = write(twice, items_of(), engine=engine)
    assert [len(result) for result in results] == [0, 1, 2, 3]
    last = engine.requests[-1]
    assert last.texts['question'] == f'{PROBLEMS[3].question} {" ".join(results[3][:2])}'
    assert engine.calls == 3 and {r.role for r in engine.requests} == {'attempt'}


@given(st.sets(st.integers(0, 3), min_size=1))
def test_a_result_does_not_depend_on_the_others(chosen):
    whole = write(twice, items_of(), first=10)
    ids = sorted(chosen)
    items = [items_of()[i] for i in ids]
    assert write(twice, items, first=[10 + i for i in ids]) == [whole[i] for i in ids]


def test_requests_have_seeds_of_their_own():
    seeds = []

    class Engine(fake_engine.AnsweringEngine):
        def generate(self, model, requests, *, method, seed):
            seeds.append(seed)
            return super().generate(model, requests, method=method, seed=seed)

    write(twice, items_of(), engine=Engine(digit))
    assert len(set(seeds)) == len(seeds) == 3


def test_who_writes_is_an_attribute_of_the_function():
    for writer, model in ((None, 'A'), ('critic', 'C')):
        engine = engine_of()

        def function(problem, notes):
            return notes.written or [problem.question]

        if writer:
            function.writer = writer
        write(function, items_of(), engine=engine)
        assert {request.model for request in engine.requests} == {model}


def test_a_request_is_not_put_as_a_problem_is():
    prompts = Prompts(attempt=Prompt(instruction='{question} ; answer ?'))
    chat = dataclasses.replace(fake_engine.CHAT, prompts=prompts)
    engine = engine_of()
    write(twice, items_of(), engine=engine, chat=chat)
    assert engine.requests[0].texts['question'] == PROBLEMS[1].question


def test_what_leaves_no_room_has_no_result():
    def function(problem, notes):
        return notes.written or [f'{problem.question} ; ben ?' if notes.number else 'ben ?']

    results = write(function, items_of(), room=8)
    assert [result is None for result in results] == [False, True, True, True]


def test_what_leaves_no_room_later_or_beside_results_ends_nothing():
    def function(problem, notes):
        long = f'{problem.question} ; ben ?'
        if notes.number == 2:
            return [long]
        return 'done' if notes.written else ['ben ?']

    def longer(problem, notes):
        return [f'{problem.question} ; ben ?' if notes.written else 'ben ?']

    assert write(function, items_of(), room=8) == ['done', 'done', None, 'done']

    def beside(problem, notes):
        return function(problem, notes) if notes.number == 2 else 'at once'

    assert write(beside, items_of(), room=8) == ['at once', 'at once', None, 'at once']
    assert write(longer, items_of(), room=8) == [None] * 4
    assert write(function, items_of()[2:3], room=8) == [None]  # alone in a later round


@pytest.mark.parametrize(
    ('function', 'message'),
    [
        (lambda problem, notes: [problem.question], 'requests of at most 1 tokens'),
        (lambda problem, notes: ['why not'], 'a text whose words the vocabulary has'),
    ],
)
def test_an_impossible_request_is_an_error_of_one_line(function, message):
    items = [(problem, Notes()) for problem in PROBLEMS]
    with pytest.raises(ValueError, match=f'the.field: .*{message}') as error:
        write(function, items, room=1)
    assert '\n' not in str(error.value)


def test_a_function_that_never_ends_is_refused():
    with pytest.raises(ValueError, match='the.field: .* a result after at most 16 requests'):
        write(lambda problem, notes: [problem.question], items_of()[:1])


@pytest.mark.parametrize('value', [None, '', 'text', 3, [], ['a', 'b'], [1], ('a',), {'a': 'b'}])
def test_anything_but_a_list_of_one_text_is_a_result(value):
    assert write(lambda problem, notes: value, items_of()[:1]) == [value]
    assert not writing.is_request(value) and writing.is_request(['x'])
