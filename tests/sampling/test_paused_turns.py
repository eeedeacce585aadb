"""Turns that pause: they end, go on as if they had not paused, or go on after a text."""

import dataclasses

import numpy as np
import pytest

from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.data.text.tokenizer import encode_continuation
from elenchus.sampling import episodes
from elenchus.sampling.engine import engine, sampling_methods, token_rules
from elenchus.sampling.engine.sampling_methods import Greedy, RuledMethod
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.paused_turns import AFTER_PAUSES, Writer
from elenchus.sampling.sample_spec import SampleSpec
from tests.support import fake_engine, tiny_model
from tests.support.fake_engine import CHAT, EOS, TOKENIZER

LINE = token_rules.pause_rule('line', TOKENIZER, TOKENIZER.vocab_size)
PAUSING = sampling_methods.with_rules(Greedy(()), None, LINE)
QUESTION = CHAT.question_turns('eve 7 ; ben : eve - 4 ; ben ?')
LINES = (' ben : eve 7 - 4 = 3 ; ben 3\n', ' #### 3\n', ' ben 4\n', ' #### 4')


@dataclasses.dataclass
class LineEngine(fake_engine.FakeEngine):
    """Writes LINES, one of them a call where the method pauses; ends after the last."""

    requests: list = dataclasses.field(default_factory=list)
    methods: list = dataclasses.field(default_factory=list)

    def generate(self, model, requests, *, method, seed):
        self.methods.append(method)
        self.requests += requests
        return super().generate(model, requests, method=method, seed=seed)

    def answer_ids(self, model, request, seed):
        text = TOKENIZER.decode(request.prompt[len(request.prompt) - request.opening :])
        rest = [ids_of(line) for line in LINES[text.replace('wrong', '').count('\n') :]]
        if isinstance(self.methods[-1], RuledMethod):
            return (*rest[0], *((EOS,) if len(rest) == 1 else ()))[: request.max_tokens]
        return (*(i for line in rest for i in line), EOS)[: request.max_tokens]


def ids_of(text):
    return encode_continuation(TOKENIZER, text)


def sample(after_pause, *, method=PAUSING, num_samples=1, limit=60, role='attempt'):
    fake = LineEngine()
    sampler = episodes.Sampler(fake, CHAT, {role: limit}, after_pause)
    ((turn, *_),) = sampler.sample_turns(
        None, [QUESTION], role, spec=SampleSpec(num_samples, method, 0, 0)
    )
    return turn, fake


def trained(turn):
    """Texts of the tokens that a trained turn trains."""
    example = CHAT.example((*QUESTION, turn), trained=('attempt',), weights=None, last_only=True)
    return TOKENIZER.decode(example.tokens[example.loss_mask > 0].tolist())


def test_a_turn_that_always_goes_on_is_the_turn_without_pauses():
    whole, fake = sample(lambda text, pause: True)
    assert fake.calls == 4 and whole.forced == ()
    assert whole == sample(lambda text, pause: True, method=Greedy(()))[0]
    assert whole == sample(None)[0]  # who has no function, has no pauses
    assert [r.opening for r in fake.requests] == [
        0,
        *np.cumsum([len(ids_of(t)) for t in LINES[:3]]),
    ]
    assert {r.id for r in fake.requests} == {0}
    assert all(r.max_tokens + r.opening == 60 for r in fake.requests)


def test_a_turn_that_is_stopped_is_finished_and_its_end_is_not_trained():
    stop = AFTER_PAUSES['stop']
    turn, fake = sample(lambda text, pause: '####' not in text)
    assert CHAT.text(turn) == (LINES[0] + LINES[1])[1:] and CHAT.is_finished(turn)
    assert turn.forced == (len(turn.tokens) - 1,) and turn.num_sampled == len(turn.tokens) - 1
    assert turn.logprobs[-1] == 0.0 and set(turn.logprobs[:-1]) == {-1.0}
    assert fake.calls == 2 and turn.tokens[-1] == EOS
    first, _ = sample(stop)
    assert CHAT.text(first) == LINES[0][1:]
    assert trained(first) == LINES[0][1:]
    example = CHAT.example((*QUESTION, first), trained=('attempt',), weights=None, last_only=True)
    assert example.loss_mask.sum() == len(first.tokens) - 1


def test_an_appended_text_is_read_on_and_never_trained():
    seen = []

    def doubt(text, pause):
        seen.append((text, pause))
        return ' wrong' if pause.num_tokens >= 12 and not pause.appended else True

    turn, _ = sample(doubt)
    count, length = len(ids_of(' wrong')), len(ids_of(LINES[0]))
    assert turn.forced == tuple(range(length, length + count))
    assert turn.num_sampled == len(turn.tokens) - count
    text = CHAT.text(turn)
    assert text.count('wrong') == 1 and 'wrong' not in trained(turn)
    assert seen[0][1].role == 'attempt' and seen[1][1].appended == (' wrong',)
    # The facts of cost count what was sampled.
    episode = records.Episode('p', 1, (*QUESTION, turn))
    assert episodes.sampled_tokens([episode]) == turn.num_sampled


def test_texts_and_turns_do_not_pass_the_limit():
    for limit in (3, 13, 14, 15, 16, 17, 26):
        turn, _ = sample(lambda text, pause: ' wrong correct wrong', limit=limit)
        assert len(turn.tokens) == limit == turn.num_sampled + len(turn.forced)
        assert not CHAT.is_finished(turn)


def test_rules_of_the_actor_are_not_for_critiques():
    turn, fake = sample(lambda text, pause: False, role='critique')
    assert fake.methods == [Greedy(())] and turn.forced == ()


@pytest.mark.parametrize('text', ['wrong', ' Wait', ' ben wait'])
def test_a_text_that_the_vocabulary_lacks_is_named(text):
    with pytest.raises(ValueError, match='a text that the vocabulary has behind another'):
        sample(lambda said, pause: text)


@pytest.mark.parametrize('reply', [None, 0, 1, '', 3.5, ('stop',)])
def test_a_reply_of_another_kind_is_named(reply):
    with pytest.raises(ValueError, match=r'sampling\.after_pause: .*must return True to go on'):
        sample(lambda text, pause: reply)


def test_every_sample_pauses_by_itself():
    fake = LineEngine()
    sampler = episodes.Sampler(fake, CHAT, {'attempt': 60}, lambda text, pause: '####' not in text)
    groups = sampler.sample_turns(
        None, [QUESTION, QUESTION], 'attempt', spec=SampleSpec(3, PAUSING, 0, 10)
    )
    assert [len(group) for group in groups] == [3, 3]
    assert len({turn.tokens for group in groups for turn in group}) == 1
    assert sorted(r.id for r in fake.requests) == sorted([*range(10, 16)] * 2)


def test_a_turn_that_paused_keeps_what_was_forced_when_it_is_continued():
    opening = dataclasses.replace(sample(lambda text, pause: ' wrong', limit=20)[0])
    sampler = episodes.Sampler(LineEngine(), CHAT, {'attempt': 60}, None)
    ((turn,),) = sampler.continue_turns(
        None, [QUESTION], [opening], spec=SampleSpec(1, Greedy(()), 0, 0)
    )
    assert opening.forced and turn.forced == opening.forced


def test_forced_tokens_are_stored():
    turn, _ = sample(lambda text, pause: False)
    episode = records.Episode('p', 1, (*QUESTION, turn))
    assert episode_files.from_json(episode_files.to_json(episode)) == episode


def test_a_real_sampler_that_pauses_samples_the_tokens_of_one_that_does_not():
    """At each third token, with a sampled turn and noise by position."""
    config = dataclasses.replace(tiny_model.FLAT, vocab_size=64, max_length=64)
    settings = EngineSettings(
        num_slots=4,
        max_length=64,
        chunk_steps=8,
        prompt_buckets=(32, 64),
        prefill_batch_sizes=(4,),
        decode_batch_sizes=(),
        decode_cache_lengths=(),
    )

    def each_third(token, logits, where):
        return where.turn_position % 3 == 2

    rule = token_rules.TokenRule(each_third, 'sampling.pause', ('attempt',))
    banned = tuple(i for i in range(64) if i not in (*range(10, TOKENIZER.vocab_size), EOS))
    plain = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned)
    pauses = []

    def go_on(text, pause):
        pauses.append(pause.num_tokens)
        return True

    sampler = episodes.Sampler(
        engine.Engine(settings, stop_ids=(EOS,)), CHAT, {'attempt': 20}, go_on
    )
    model = tiny_model.make_model(config)
    spec = SampleSpec(3, sampling_methods.with_rules(plain, None, rule), 1, 0)
    paused = sampler.sample_turns(model, [QUESTION], 'attempt', spec=spec)
    whole = sampler.sample_turns(
        model, [QUESTION], 'attempt', spec=dataclasses.replace(spec, method=plain)
    )
    assert [t.tokens for t in paused[0]] == [t.tokens for t in whole[0]]
    assert {3, 6, 9} <= set(pauses) <= {3, 6, 9, 12, 15, 18}
    for one, other in zip(paused[0], whole[0], strict=True):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)


def test_a_writer_without_paused_turns_samples_nothing():
    turn = CHAT.text_turn('attempt', '#### 3')
    request = engine.Request(0, (5, 6), 60)
    writer = Writer(CHAT, None, None, 60)
    assert writer.finish([turn], [request]) == [turn]
