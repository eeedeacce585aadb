"""Episodes of two turns: scores of refinements, and SCoRe's instruction under every template."""

import dataclasses

import numpy as np
import pytest

from elenchus.data import records
from elenchus.data.lab import task
from elenchus.data.text import chat_templates, tokenizer_json
from elenchus.data.text.chat import Chat
from elenchus.data.text.prompts import Prompt, Prompts
from elenchus.sampling import episodes
from elenchus.sampling.engine.requests import Completion
from elenchus.train.rl import actor_episodes, rollouts, update_batch
from tests.support import fake_engine, hf_tokenizers
from tests.support.rollout_cases import PROBLEMS, answer, assign_credit, make_rules, make_setup


def opinionated(role, request, seed):
    """Attempts and refinements are all right; critiques say so, or are cut off for request 1."""
    text = fake_engine.critique(request)
    if role != 'critique':
        return fake_engine.ids_of(task.solve(fake_engine.question_of(request)))
    return text[:-1] if request.id % 4 == 1 else text


TWO_TURNS = {
    'advantage__outcome': 'dr_grpo', 'turns__progress': 10.0, 'rewards__length': 0.0,
    'rewards__correct': 1.0,
}  # fmt: skip


@pytest.mark.parametrize('episode', ['correction', 'critique'])
@pytest.mark.parametrize('term', ['steps', 'verdict'])
def test_a_refinement_is_scored_by_a_critique_of_its_own(monkeypatch, episode, term):
    """It would earn no score otherwise, and `progress` would punish it for a good attempt."""
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    changes = TWO_TURNS | {'turns__episode': episode, f'rewards__{term}': 0.5}
    rules = make_rules(**changes)
    setup, engine = make_setup(answer)
    (group,), tokens = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    assert tokens == engine.tokens and engine.num_requests('critique') == 2 * 4
    roles = ['question', 'attempt', *(['critique'] if episode == 'critique' else []), 'refinement']
    values = assign_credit(group, rules)
    for e, terms in zip(group, values.terms, strict=True):
        assert [turn.role for turn in e.turns] == roles
        for role in ('attempt', 'refinement'):
            turn = e.turn(role)
            assert turn.facts.score == (0.9 if turn.facts.correct else 0.1)
            expected = turn.facts.score if term == 'verdict' else np.mean(turn.step_scores)
            assert terms[role] == {'correct': turn.facts.correct, term: pytest.approx(expected)}
    # Each turn's advantage has the sign of its own success.
    for e, turns in zip(group, values.advantages, strict=True):
        assert (turns[len(roles)] > 0).all() == e.turn('refinement').facts.correct


def test_opinions_of_attempts_alone_move_no_refinement(monkeypatch):
    """All right, and right again; the critic liked only every other attempt."""
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    rules = make_rules(**TWO_TURNS, turns__episode='correction', rewards__steps=0.5)
    setup, _ = make_setup(opinionated)
    (group,), _ = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    values = assign_credit(group, rules)
    assert [terms['refinement']['steps'] is None for terms in values.terms] == [
        False, True, False, False,
    ]  # fmt: skip
    assert not any(turns[n].any() for turns in values.advantages for n in (2, 3))


def test_refinements_are_not_criticised_where_no_reward_reads_it(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    setup, engine = make_setup(answer)
    rules = make_rules(turns__episode='correction', advantage__step_coef=0.5)
    rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    assert engine.num_requests('critique') == 4


def test_metrics_tell_the_terms_of_each_turn_and_the_share_that_is_unknown(monkeypatch):
    monkeypatch.setattr('elenchus.sampling.step_scores.step_rewards', fake_engine.step_rewards)
    rules = make_rules(**TWO_TURNS, turns__episode='correction', rewards__verdict=0.5)
    setup, _ = make_setup(opinionated)
    (group,), _ = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    metrics = update_batch.term_metrics([assign_credit(group, rules)])
    assert metrics == {
        'reward/attempt/correct': 1.0,
        'reward/attempt/verdict': pytest.approx(0.9),
        'reward/attempt/verdict_unknown': 0.25,
        'reward/refinement/correct': 1.0,
        'reward/refinement/verdict': pytest.approx(0.9),
        'reward/refinement/verdict_unknown': 0.25,
        'reward/correct': 1.0,
        'reward/verdict': pytest.approx(0.9),
    }
    # Of the cut-off critique's attempt, only the answer's line is unknown.
    lines = len(group[0].attempt.steps)
    expected = {'reward/steps_unknown': pytest.approx(1 / 4 / lines)}
    assert update_batch.unknown_steps(group) == expected


FAMILIES = sorted(
    name for name, t in chat_templates.TEMPLATES.items() if name != 'elenchus' and not t.prefix
)


INSTRUCTION = 'Now write the whole solution again with every mistake corrected, please.'


@pytest.mark.parametrize('kind', ['correction', 'critique', 'gated'])
@pytest.mark.parametrize('family', FAMILIES)
def test_two_turns_are_sampled_and_trained_under_the_template_of_every_family(
    family, kind, monkeypatch
):
    """With the instruction of the episode, or one of the config, which counts in the lengths."""
    monkeypatch.setattr(rollouts, 'score_steps', lambda models, episodes, scorer: episodes)
    content = hf_tokenizers.files(hf_tokenizers.golden()['merges'])[family]
    tokenizer = tokenizer_json.JsonTokenizer(content.encode())
    own = Prompts() if kind == 'correction' else Prompts(refinement=Prompt(instruction=INSTRUCTION))
    chat = Chat(tokenizer, chat_templates.TEMPLATES[family], prompts=own)
    prompts = []

    class Engine:
        def generate(self, model, requests, *, method, seed):
            prompts.extend(list(request.prompt) for request in requests)
            ids = chat.text_turn('attempt', 'It is 3.').tokens
            return [Completion(r.id, ids, (-1.0,) * len(ids), True, 1) for r in requests]

    judge = lambda pairs: [records.TurnFacts(correct=True) for _ in pairs]  # noqa: E731
    models = dataclasses.replace(
        fake_engine.players(None),
        sampler=episodes.Sampler(Engine(), chat, fake_engine.LIMITS),
        judge=judge,
    )
    setup = make_setup(answer)[0]._replace(models=models)
    rules = make_rules(turns__episode=kind, rewards__length=0.0)
    (group,), _ = rollouts.sample_actor_groups(setup, rules, PROBLEMS[:1], seed=7)
    text = ' '.join(chat.tokenizer.decode(prompts[-1]).split())
    assert (chat_templates.CORRECTION if kind == 'correction' else INSTRUCTION) in text
    layout = update_batch.RowLayout('actor', 400, 4, 0.0, mask_truncated=False)
    batch = update_batch.batch_without_weights(group, layout, chat)
    turns = group[0].turns
    start = len(prompts[0])
    limits = {turn.role: len(turn.tokens) for turn in turns[1:]}
    overhead = actor_episodes.turn_overhead(chat, kind)
    longest = actor_episodes.longest_response(kind, limits, overhead=overhead)
    assert int(np.flatnonzero(batch.loss_mask[0])[-1]) < start + longest
    trained = batch.tokens[0][batch.loss_mask[0] > 0].tolist()
    assert trained == [*turns[1].tokens, *turns[-1].tokens]
