"""Test-time training: adapters for one question, that change its attempts and nothing else."""

import dataclasses

import jax
import numpy as np
import pytest

from elenchus.configs import lab
from elenchus.data import records
from elenchus.model import lora
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.sampling.episodes import Sampler
from elenchus.sampling.step_scores import ScoreShapes
from elenchus.sampling.test_time import strategies
from elenchus.train.config import build
from elenchus.train.config.evaluate_settings import AdaptSettings, EvaluateSettings
from elenchus.train.run.directory import StageFolder
from elenchus.train.stages import adapted_attempts
from elenchus.train.stages.actor_attempts import sample_attempts
from tests.support import fake_engine, tiny_model
from tests.support.fake_engine import CHAT, TOKENIZER

CONFIG = dataclasses.replace(
    tiny_model.CONFIG, vocab_size=TOKENIZER.vocab_size, num_layers=1, max_length=128
)
SETTINGS = build.build(EvaluateSettings, lab.get_config('smoke').evaluate)
PROBLEMS = fake_engine.problems(3)
LIMITS = {'attempt': 6, 'critique': 6, 'refinement': 6}
SHAPES = EngineSettings(
    num_slots=2, max_length=96, chunk_steps=6, prompt_buckets=(80,), prefill_batch_sizes=(1,),
    decode_batch_sizes=(), decode_cache_lengths=(),
)  # fmt: skip
SOURCE = """
def pairs(problem, notes):
    return [(problem.question, problem.solution), ('', 'nothing')]


def asked(problem, notes):
    text = ''.join(notes.written)
    return [(problem.question, f'{text} #### 1')] if notes.written else [problem.question]


def second(group):
    return group.problem.id.endswith('1')


def nothing(logprobs, entropy, batch):
    return 0 * logprobs


def number(group):
    return 1
"""


@pytest.fixture(scope='module')
def play(tmp_path_factory):
    """play(what is made, when, **options) -> (episodes, figures, tokens) of all problems."""
    path = tmp_path_factory.mktemp('functions') / 'mine.py'
    path.write_text(SOURCE)
    sampler = Sampler(engine.Engine(SHAPES, stop_ids=(CHAT.end_id,)), CHAT, LIMITS)
    method = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
    plain = tiny_model.make_model(CONFIG)

    def play(make, when='always', *, reweigh='none', actor=plain):
        models = dataclasses.replace(
            fake_engine.players(None), sampler=sampler, actor=actor, critic=None
        )
        scorer = dataclasses.replace(fake_engine.SCORER, shapes=ScoreShapes(1, (96,)))
        setup = strategies.EvaluationSetup(models, scorer, method, 'wrong', 1, seed=3)
        attempts = sample_attempts(
            sampler, actor, PROBLEMS, judge=models.judge, method=method, seed=3,
            num_samples=2, first=0,
        )  # fmt: skip
        name = lambda f, built_in: f if f == built_in else f'{path}:{f}'  # noqa: E731
        fit = SETTINGS.adapt.fit
        optimizer = dataclasses.replace(fit.optimizer, learning_rate=0.05)
        fit = dataclasses.replace(fit, reweigh=name(reweigh, 'none'))
        adapt = AdaptSettings(
            name(make, 'none'), name(when, 'always'),
            dataclasses.replace(fit, num_steps=3, optimizer=optimizer),
            lora.LoraSettings(2, 4.0, ('query', 'up')),
        )  # fmt: skip
        stage = StageFolder.temporary()
        groups = records.group_episodes(PROBLEMS, attempts)
        figures, tokens = adapted_attempts.evaluate_adapted(
            setup,
            groups,
            settings=dataclasses.replace(SETTINGS, adapt=adapt),
            stage=stage,
            room=80,
        )
        sampled = (stage.path / 'adapted').exists()
        found = list(stage.parts('adapted', groups).read()[0]) if figures else []
        return attempts, found, figures, tokens, sampled

    play.model = plain
    return play


def by_problem(episodes):
    return {
        p.id: [(e.attempt.tokens, e.attempt.logprobs) for e in episodes if e.problem_id == p.id]
        for p in PROBLEMS
    }


def leaves(model):
    return [np.array(x) for x in jax.tree.leaves(model)]


def test_off_samples_nothing(play):
    assert play('none')[1:] == ([], {}, 0, False)


@pytest.mark.slow
def test_adapters_that_learn_nothing_repeat_the_attempts_bit_for_bit(play):
    attempts, found, figures, *_ = play('pairs', reweigh='nothing')
    assert by_problem(found) == by_problem(attempts)
    assert figures['adapted']['difference']['all'][0] == 0.0


@pytest.mark.slow
def test_trained_adapters_change_the_attempts_and_not_the_model(play):
    before = leaves(play.model)
    attempts, found, figures, tokens, _ = play('pairs')
    changed, plain = by_problem(found), by_problem(attempts)
    assert all(changed[p.id] != plain[p.id] for p in PROBLEMS)
    for x, y in zip(before, leaves(play.model), strict=True):
        np.testing.assert_array_equal(x, y)
    assert tokens == sum(e.attempt.num_sampled for e in found)
    assert figures['adapted']['questions'] == 3 and figures['adapted']['share'] == 1.0
    again = play('pairs')[1]  # nothing is left of the first time
    assert by_problem(again) == changed


def test_a_question_is_answered_as_if_it_were_the_only_one(play):
    together = by_problem(play('pairs')[1])
    alone = by_problem(play('pairs', 'second')[1])
    assert alone[PROBLEMS[1].id] == together[PROBLEMS[1].id] and not alone[PROBLEMS[0].id]


def test_only_chosen_questions_are_attempted_again(play):
    _, found, figures, *_ = play('pairs', 'second')
    chosen = [p.id for p in PROBLEMS if p.id.endswith('1')]
    assert [e.problem_id for e in found] == [id for id in chosen for _ in range(2)]
    assert figures['adapted']['share'] == pytest.approx(len(chosen) / 3)


def test_what_the_actor_writes_for_it_is_counted(play):
    _, found, _, tokens, _ = play('asked', 'second')
    assert tokens > sum(e.attempt.num_sampled for e in found) > 0


@pytest.mark.slow
def test_the_adapters_of_an_actor_go_on_and_stay_as_they_are(play):
    adaptation = lora.Adaptation(lora.LoraSettings(3, 6.0, ('query',)), '', 0, 'none')
    adapters = lora.init_adapters(CONFIG, adaptation, jax.random.key(1))
    actor = lora.attach(play.model, jax.tree.map(lambda x: x + 0.1, adapters))
    before = leaves(actor)
    attempts, found, *_ = play('pairs', 'second', actor=actor)
    assert by_problem(found)[PROBLEMS[1].id] != by_problem(attempts)[PROBLEMS[1].id]
    for x, y in zip(before, leaves(actor), strict=True):
        np.testing.assert_array_equal(x, y)


def test_figures_count_a_question_that_is_not_chosen_with_its_own_attempts():
    def attempt(problem, correct):
        turn = CHAT.text_turn('attempt', '#### 1').with_facts(correct=correct)
        return records.Episode(problem.id, problem.level, (turn,))

    groups = [
        records.RolloutGroup(p, (attempt(p, False), attempt(p, i == 0)))
        for i, p in enumerate(PROBLEMS)
    ]
    adapted = [attempt(PROBLEMS[1], True)] * 2
    figures = adapted_attempts.figures(SETTINGS, groups, adapted)
    assert figures['accuracy']['all'][0] == pytest.approx((0.5 + 1 + 0) / 3)
    assert figures['difference']['all'][0] == pytest.approx(1 / 3)
    assert (figures['questions'], figures['share']) == (1, pytest.approx(1 / 3))


def test_bad_functions_and_settings_are_errors_of_one_line(play):
    with pytest.raises(ValueError, match=r'evaluate\.adapt\.when: number .* a boolean') as error:
        play('pairs', 'number')
    assert '\n' not in str(error.value)
    with pytest.raises(
        ValueError, match=r"evaluate\.adapt\.when='a:b' .* set evaluate\.adapt\.make"
    ):
        AdaptSettings('none', 'a:b', SETTINGS.adapt.fit, SETTINGS.adapt.lora)
    with pytest.raises(ValueError, match=r'evaluate\.adapt\.lora\.rank=0 .* nearest: 1'):
        AdaptSettings('a:b', 'always', SETTINGS.adapt.fit, lora.LoraSettings(0, 1.0, ('up',)))
    fit = dataclasses.replace(SETTINGS.adapt.fit, num_steps=0)
    with pytest.raises(ValueError, match=r'evaluate\.adapt\.fit\.num_steps=0'):
        AdaptSettings('a:b', 'always', fit, SETTINGS.adapt.lora)
