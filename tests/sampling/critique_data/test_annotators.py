"""Annotators that use a model: rollout verdicts, a writer's words, a checkpoint's critiques."""

import collections
import dataclasses
import itertools

import pytest

from elenchus.data.critiques import grammars
from elenchus.data.critiques.oracle import ConstructedAttempt
from elenchus.data.grading import judge, verify
from elenchus.data.lab import forms, pretraining, task
from elenchus.sampling.critique_data import annotators
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.sample_spec import SampleSpec
from tests.support import fake_engine
from tests.support.fake_engine import LIMITS, TOKENIZER

PROBLEM = forms.generate_problem(seed=0, split='train', index=4)
LINES = PROBLEM.solution.split('\n')
SAMPLING = sampling_methods.TemperatureSampling(0.7, 0, 1.0, 0.0, banned=())
ACTOR, WRITER, CRITIC = 'actor', 'writer', 'critic'


@pytest.fixture(scope='module')
def judging():
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield judge.make_judge('lab', verifier)


def path_of(attempt, problem=PROBLEM, construction='RG1', location=None, kind=None):
    return ConstructedAttempt(problem, attempt, construction, location, kind)


def wrong_line(at):
    """The reference's lines, the value of one wrong, as its answer then is."""
    lines = list(LINES)
    step = task.parse_step(lines[at])
    if step is not None:
        changed = dataclasses.replace(step, value=(step.value + 1) % 10).text()
        lines[at] = lines[at].replace(step.text(), changed)
    lines[-1] = f'{LINES[-1][:-1]}{(int(LINES[-1][-1]) + 1) % 10}'
    return '\n'.join(lines)


def play(request):
    """The actor continues a correct prefix correctly; the writer works the question out."""
    if request.model == WRITER:
        return pretraining.worked_solution(request.texts['question'])
    solution = task.solve(request.texts['question']).split('\n')
    done = request.opening.split('\n')[:-1]
    wrong = done != solution[: len(done)]
    rest = solution[len(done) :]
    return '\n'.join([*rest[:-1], f'{rest[-1][:-1]}{(int(rest[-1][-1]) + wrong) % 10}'])


def annotate(judging, items, answer=play, *, writer=WRITER, threshold=0.5, num_rollouts=4):
    sampler = fake_engine.make_sampler(answer)
    annotator = annotators.monte_carlo_annotator(
        sampler,
        ACTOR,
        writer,
        judge=judging,
        grammar=grammars.LAB,
        threshold=threshold,
        spec=SampleSpec(num_rollouts, SAMPLING, 0, 0),
    )
    return annotator(items), sampler.engine


# Monte Carlo


@pytest.mark.parametrize('at', [None, *range(len(LINES))])
def test_with_perfect_players_it_writes_what_the_oracle_writes(judging, at):
    attempt = PROBLEM.solution if at is None else wrong_line(at)
    texts, _ = annotate(judging, [path_of(attempt)])
    assert texts == [task.judge(PROBLEM.question, attempt).critique]


def test_each_prefix_is_continued_once_in_one_call(judging):
    items = [path_of(a) for a in (PROBLEM.solution, wrong_line(2), wrong_line(4))]
    _, engine = annotate(judging, items, num_rollouts=3)
    rollouts = [request for request in engine.requests if request.model == ACTOR]
    counts = collections.Counter(request.opening for request in rollouts)
    steps = len(LINES) - 1
    assert set(counts.values()) == {3} and len(counts) == steps + (steps - 2) + (steps - 4)
    assert engine.calls == 2
    assert len({request.id for request in rollouts}) == len(rollouts)


def test_lines_before_the_location_are_right_without_a_rollout(judging):
    path = path_of(wrong_line(3), construction='RG2', location=3)
    (text,), engine = annotate(judging, [path])
    openings = [request.opening for request in engine.requests if request.model == ACTOR]
    assert min(text.count('\n') for text in openings) == 4
    assert grammars.first_error(grammars.LAB.parse(text)) == 3


@pytest.mark.parametrize(('threshold', 'wrong'), [(0.0, None), (0.5, None), (0.51, 0), (1.0, 0)])
def test_a_line_is_wrong_below_the_threshold_and_not_at_it(judging, threshold, wrong):
    """Half of the rollouts succeed, from everywhere."""
    turn = itertools.count()

    def answer(request):
        if request.model == ACTOR and next(turn) % 2:
            return '= ='
        return play(request)

    (text,), _ = annotate(judging, [path_of(PROBLEM.solution)], answer, threshold=threshold)
    critique = grammars.LAB.parse(text)
    assert grammars.first_error(critique) == wrong
    assert critique.final_correct is (wrong is None)


def test_a_rollout_that_is_cut_off_does_not_succeed(judging):
    def answer(request):
        return play(request) + '...' * (request.model == ACTOR)

    (text,), _ = annotate(judging, [path_of(PROBLEM.solution)], answer)
    assert grammars.first_error(grammars.LAB.parse(text)) == 0


def test_the_words_are_the_writers_and_the_verdict_is_not(judging):
    """A writer that is wrong everywhere changes the words before the verdicts, not the verdicts."""

    def answer(request):
        text = play(request)
        return text.replace('= 7', '= 8') if request.model == WRITER else text

    attempt = wrong_line(2)
    (text,), engine = annotate(judging, [path_of(attempt)], answer)
    (true,), _ = annotate(judging, [path_of(attempt)])
    said, expected = grammars.LAB.parse(text), grammars.LAB.parse(true)
    assert [s.correct for s in said.steps] == [s.correct for s in expected.steps]
    assert text != true
    prompts = [request.texts for request in engine.requests if request.model == WRITER]
    assert prompts == [{'question': PROBLEM.question}]


@pytest.mark.parametrize(
    'attempt', ['= + 7\n\n correct\n wrong', '', '####', f'7\n{PROBLEM.solution}']
)
@pytest.mark.parametrize('silent', [False, True])
def test_any_attempt_gets_a_critique_that_can_be_read(judging, attempt, silent):
    """A line that the writer does not have is described by the attempt's own words."""

    def careless(request):
        return 'is' if request.model == ACTOR else '' if silent else play(request)

    (text,), _ = annotate(judging, [path_of(attempt)], careless)
    critique = grammars.LAB.parse(text)
    assert critique.final_correct is False
    assert '<unk>' not in TOKENIZER.decode(TOKENIZER.encode(text))


def test_free_text_states_the_number_of_successes(judging):
    texts, _ = annotators_words(judging, location=None)
    (critique,) = map(grammars.RELEASED.parse, texts)
    assert [s.correct for s in critique.steps] == [True, True, False]
    assert critique.steps[0].sentence == LINES[0].strip()
    assert 'Of 4 continuations from here, 4 reach' in critique.steps[0].explanation
    assert 'Of 4 continuations from here, 0 reach' in critique.steps[2].explanation
    assert critique.final_correct is False


def annotators_words(judging, location, ending=''):
    sampler = fake_engine.make_sampler(play)
    annotator = annotators.monte_carlo_annotator(
        sampler,
        ACTOR,
        None,
        judge=judging,
        grammar=grammars.RELEASED,
        threshold=0.5,
        spec=SampleSpec(4, SAMPLING, 0, 0),
    )
    return annotator([path_of(wrong_line(2) + ending, location=location)]), sampler.engine


def test_free_text_states_an_answer_whatever_follows_it(judging):
    texts, _ = annotators_words(judging, location=None, ending='\n')
    (critique,) = map(grammars.RELEASED.parse, texts)
    assert critique.final_explanation == f'The answer is {wrong_line(2)[-1]}.'


def test_no_number_is_claimed_where_nothing_was_tried(judging):
    texts, _ = annotators_words(judging, location=2)
    (critique,) = map(grammars.RELEASED.parse, texts)
    assert ['continuations' in s.explanation for s in critique.steps] == [False, False, True]


def test_a_beginning_without_room_to_continue_reaches_nothing(judging):
    attempt = '\n'.join(LINES[:1] * 9 + LINES[-1:])
    sampler = fake_engine.make_sampler(lambda request: '=...')
    (successes,) = annotators.count_successes(
        sampler, ACTOR, [path_of(attempt)], judge=judging, spec=SampleSpec(1, SAMPLING, 0, 0)
    )
    assert successes == dict.fromkeys(range(9), 0)
    assert 0 < len(sampler.engine.requests) < 9


# A checkpoint


def ask_critic(items, answer, grammar=grammars.LAB):
    sampler = fake_engine.make_sampler(answer)
    return annotators.model_annotator(
        sampler, CRITIC, grammar=grammar, spec=SampleSpec(1, SAMPLING, 0, 0)
    )(items), sampler.engine


def test_the_checkpoint_sees_the_reference_answer_and_the_location():
    attempt = wrong_line(2)
    located = path_of(attempt, construction='RG3', location=2, kind='arithmetic')
    _, engine = ask_critic([path_of(attempt), located], lambda request: 'answer : wrong')
    unknown, known = [request.texts for request in engine.requests]
    assert unknown['guide'] == f'answer : {PROBLEM.answer}'
    assert known['guide'] == f'answer : {PROBLEM.answer} ; wrong : 2'
    for prompt in (unknown, known):
        assert (prompt['question'], prompt['attempt']) == (PROBLEM.question, attempt)


def test_guidance_in_words_names_the_kind_too():
    path = path_of('', construction='RG3', location=2, kind='dropped')
    text = annotators.guidance(path, grammars.RELEASED)
    assert PROBLEM.answer in text and 'before step 3 ' in text and 'dropped' in text
    unknown = annotators.guidance(path_of(''), grammars.RELEASED)
    assert 'step' not in unknown and 'None' not in unknown + text


@pytest.mark.parametrize(
    ('said', 'kept'),
    [
        ('ben : eve - 4 ; correct\n answer : correct', True),
        ('answer : wrong', True),
        ('answer : wrong...', False),
        ('ben : eve - 4 ; correct', False),
        ('answer : correct\n answer : wrong', False),
        ('is', False),
    ],
)
def test_a_critique_without_a_final_verdict_is_none_and_a_false_one_is_kept(said, kept):
    texts, _ = ask_critic([path_of(wrong_line(2))], lambda request: said)
    assert texts == [said if kept else None]


def test_an_attempt_too_long_for_the_prompt_has_no_critique_and_the_others_keep_theirs():
    long, cut_off = (' '.join(['='] * (LIMITS['attempt'] + i)) for i in (1, 0))
    texts, engine = ask_critic(
        [path_of(long), path_of(cut_off), path_of('=')],
        lambda request: f'answer : {request.texts["attempt"][0]} ; wrong',
    )
    assert texts == [None, *['answer : = ; wrong'] * 2]
    assert [request.texts['attempt'] for request in engine.requests] == [cut_off, '=']
