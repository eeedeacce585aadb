"""Two-player episodes: token ids are kept, and a garbled critique has no verdict."""

import dataclasses
import functools
import itertools

import pytest

from elenchus.data.critiques import grammars
from elenchus.data.grading import judge, verify
from elenchus.data.lab import forms, task
from elenchus.data.text import tokenizer as tokenizers
from elenchus.sampling import episodes
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.sample_spec import SampleSpec
from tests.support import tiny_model
from tests.support.fake_engine import CHAT, EOS, TOKENIZER, ScriptedEngine

CONTROL = tuple(TOKENIZER.special(n) for n in (*tokenizers.HEADERS, '<pad>', '<unk>', '<s>'))
CONFIG = dataclasses.replace(
    tiny_model.CONFIG,
    vocab_size=TOKENIZER.vocab_size,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    max_length=256,
    scan_layers=False,
)
SETTINGS = engine.EngineSettings(
    num_slots=4, max_length=256, chunk_steps=8, prompt_buckets=(224,), prefill_batch_sizes=(4,),
    decode_batch_sizes=(), decode_cache_lengths=(),
)  # fmt: skip
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=CONTROL)
GREEDY = sampling_methods.Greedy(banned=CONTROL)
FEW = {TOKENIZER.newline_id, EOS, *TOKENIZER.encode('= + 7')}
DRIFTING = sampling_methods.TemperatureSampling(
    1.0, 0, 1.0, 0.0, tuple(set(range(TOKENIZER.vocab_size)) - FEW)
)
"""Many line breaks: text that opens with one is encoded to other ids than those it came from."""
LIMITS = {'attempt': 9, 'critique': 7, 'refinement': 5}
PROBLEMS = [forms.generate_problem(seed=0, split='train', index=i) for i in range(3)]
RIGHT = PROBLEMS[1].solution


@functools.cache
def model(seed=0):
    return tiny_model.make_model(CONFIG, seed)


@pytest.fixture(scope='module')
def judging():
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield judge.make_judge('lab', verifier)


class Recording:
    """An engine that records every request and answers as `inner` does."""

    def __init__(self, inner):
        self.inner, self.requests = inner, []

    def generate(self, model, requests, **options):
        self.requests += requests
        return self.inner.generate(model, requests, **options)


def make_sampler(inner):
    return episodes.Sampler(inner, CHAT, LIMITS)


def ids_of(turns):
    return tuple(itertools.chain.from_iterable((*turn.header, *turn.tokens) for turn in turns))


@pytest.fixture(scope='module')
def played(judging):
    """(engine with its requests, attempts, criticised, refined) of untrained players."""
    recording = Recording(engine.Engine(SETTINGS, stop_ids=(EOS,)))
    sampler = make_sampler(recording)
    attempts = episodes.sample_attempts(
        sampler, model(), PROBLEMS, judge=judging, spec=SampleSpec(2, DRIFTING, 0, 0)
    )
    criticised = episodes.sample_critiques(
        sampler, model(1), attempts, grammar=grammars.LAB, spec=SampleSpec(1, DRIFTING, 1, 0)
    )
    refined = episodes.sample_refinements(
        sampler,
        model(),
        criticised,
        problems=[p for p in PROBLEMS for _ in range(2)],
        judge=judging,
        spec=SampleSpec(2, SAMPLING, 2, 0),
    )
    return recording, attempts, criticised, refined


def test_every_turn_is_sampled_from_the_ids_that_were_sampled_before(played):
    recording, attempts, criticised, refined = played
    prompts = [request.prompt for request in recording.requests]
    questions = [CHAT.question_turns(p.question) for p in PROBLEMS for _ in range(2)]
    expected = [(*ids_of(turns), *CHAT.header('attempt')) for turns in questions]
    expected += [(*ids_of(e.turns), *CHAT.header('critique')) for e in attempts]
    expected += [
        (*ids_of(e.turns), *CHAT.header('refinement')) for e in criticised for _ in range(2)
    ]
    assert prompts == expected
    pairs = zip(criticised, refined, strict=True)
    assert all(e.turns[:-1] == before.turns for before, g in pairs for e in g)


def test_what_was_sampled_is_not_what_its_text_is_encoded_to(played):
    """Otherwise the test above would also pass with turns that are tokenised again."""
    _, _, criticised, _ = played
    bodies = [[t for t in turn.tokens if t != EOS] for e in criticised for turn in e.turns[1:]]
    assert any(TOKENIZER.encode(TOKENIZER.decode(body)) != body for body in bodies)


def test_an_opening_cut_from_a_sample_is_continued_to_that_very_sample():
    sampler = make_sampler(engine.Engine(SETTINGS, stop_ids=(EOS,)))
    questions = [CHAT.question_turns(p.question) for p in PROBLEMS]
    endless = dataclasses.replace(SAMPLING, banned=(*CONTROL, EOS))
    spec = SampleSpec(num_samples=1, method=endless, seed=3, first_id=5)
    whole = [turn for (turn,) in sampler.sample_turns(model(), questions, 'attempt', spec=spec)]
    cut = [CHAT.sampled_turn('attempt', t.tokens[:4], t.logprobs[:4]) for t in whole]
    again = [turn for (turn,) in sampler.continue_turns(model(), questions, cut, spec=spec)]
    assert [t.tokens for t in again] == [t.tokens for t in whole]
    for one, other in zip(again, whole, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-5)
    unsampled = [dataclasses.replace(turn, logprobs=()) for turn in cut]
    unknown = sampler.continue_turns(model(), questions, unsampled, spec=spec)
    assert [(t.tokens, t.logprobs) for (t,) in unknown] == [(t.tokens, ()) for t in whole]


def test_a_line_at_a_time_stops_at_line_breaks():
    newline = TOKENIZER.newline_id
    sampler = make_sampler(engine.Engine(SETTINGS, stop_ids=(EOS, newline)))
    turns = sampler.sample_turns(
        model(),
        [CHAT.question_turns(PROBLEMS[0].question)],
        'attempt',
        spec=SampleSpec(8, DRIFTING, 0, 0),
    )[0]
    assert {t.tokens[-1] for t in turns} >= {newline, EOS}
    assert all(not {EOS, newline} & set(t.tokens[:-1]) for t in turns)


def test_samples_of_one_problem_stand_together_and_differ(played):
    _, attempts, _, refined = played
    assert [e.problem_id for e in attempts] == [p.id for p in PROBLEMS for _ in range(2)]
    pairs = [attempts[i : i + 2] for i in (0, 2, 4)] + refined
    differ = [a.turns[-1].tokens != b.turns[-1].tokens for a, b in pairs]
    assert sum(differ) > len(pairs) / 2  # some end at once, both of them


def test_turns_keep_within_their_limits_and_carry_log_probabilities(played):
    for episode in itertools.chain.from_iterable(played[3]):
        for turn in episode.turns[1:]:
            assert len(turn.logprobs) == len(turn.tokens) <= LIMITS[turn.role]
            assert turn.step_ends[-1] == len(turn.tokens)


def test_sampled_tokens_are_those_of_played_turns(played):
    refined = [e for group in played[3] for e in group]
    expected = sum(len(t.tokens) for e in refined for t in e.turns if t.role != 'question')
    assert episodes.sampled_tokens(refined) == expected


def one_attempt(judging, text, unfinished=()):
    sampler = make_sampler(ScriptedEngine({'attempt': [text]}, unfinished))
    (episode,) = episodes.sample_attempts(
        sampler, None, [PROBLEMS[1]], judge=judging, spec=SampleSpec(1, SAMPLING, 0, 0)
    )
    return episode


def criticise(judging, text, unfinished=()):
    sampler = make_sampler(ScriptedEngine({'critique': [text]}, unfinished))
    (episode,) = episodes.sample_critiques(
        sampler,
        None,
        [one_attempt(judging, RIGHT)],
        grammar=grammars.LAB,
        spec=SampleSpec(1, GREEDY, 0, 0),
    )
    return episode


def test_an_attempt_that_was_cut_off_is_wrong_even_with_its_answer(judging):
    assert one_attempt(judging, RIGHT).attempt.facts.correct
    cut_off = one_attempt(judging, RIGHT, unfinished=('attempt',)).attempt.facts
    assert not cut_off.correct and cut_off.answer is None


@pytest.mark.parametrize(
    ('text', 'verdict', 'located'),
    [
        (task.judge(PROBLEMS[1].question, RIGHT).critique, True, None),
        ('ada ; correct\n ben ; wrong\n answer : wrong', False, 1),
        ('ada ; correct\n answer : eve 3 ; wrong', False, 1),
        ('ada ; correct', None, None),
        ('answer : correct\n answer : wrong', None, None),
        ('correct', None, None),
        ('is is is', None, None),
    ],
)
def test_a_critique_is_read_and_a_garbled_one_has_no_verdict(judging, text, verdict, located):
    facts = criticise(judging, text).critique.facts
    assert (facts.verdict, facts.located) == (verdict, located)


def test_a_critique_that_was_cut_off_has_no_verdict(judging):
    text = task.judge(PROBLEMS[1].question, RIGHT).critique
    assert criticise(judging, text, unfinished=('critique',)).critique.facts.verdict is None
