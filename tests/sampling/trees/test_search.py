"""Tree search: what it asks of the models, budgets, costs, and independence of companions."""

import collections
import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenchus.data.critiques import grammars
from elenchus.data.lab import forms
from elenchus.sampling import episodes
from elenchus.sampling.engine import engine, sampling_methods
from elenchus.sampling.model_pair import ModelPair
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.sampling.test_time import partial_attempts
from elenchus.sampling.test_time.feedback import with_appended
from elenchus.sampling.trees import values
from elenchus.sampling.trees.search import TreeSearch, TreeSettings, ended_attempts, search_trees
from tests.sampling.test_time import test_beam
from tests.support import fake_engine
from tests.support.fake_engine import CHAT, LIMITS

PROBLEMS = [forms.generate_problem(seed=0, split='test', index=i) for i in (1, 2, 3)]
SAMPLING = sampling_methods.TemperatureSampling(1.0, 0, 1.0, 0.0, banned=())
SETTINGS = TreeSettings(
    grow='line', select='uct', exploration=0.5, values=(('min', 1.0),), backup='mean',
    num_rollouts=2, expansions=2, children=2, max_depth=12, num_nodes=24, num_tokens=0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def scored(monkeypatch):
    monkeypatch.setattr(partial_attempts.step_scores, 'step_rewards', fake_engine.step_rewards)


def careless(role, request, seed):
    """Half of the lines are wrong; a rollout or refinement that ends a turn is right."""
    if role == 'refinement':
        return fake_engine.rest_of_solution(request, role)
    return fake_engine.careless(role, request, seed)


def whole_turns(role, request, seed):
    """Critiques, and attempts and refinements to their end."""
    if role == 'critique':
        return fake_engine.critique(request)
    return fake_engine.rest_of_solution(request, role)


def search(problems=PROBLEMS, first=0, lines=careless, turns=whole_turns, **changed):
    """(what was found, engine of lines, engine of whole turns)."""
    s = dataclasses.replace(SETTINGS, **changed)
    engines = [fake_engine.RuleEngine(rule) for rule in (lines, turns)]
    line_players, players = map(fake_engine.players, engines)
    sampler = line_players.sampler if s.grow == 'line' else None
    found = search_trees(
        TreeSearch(s, sampler, fake_engine.SCORER),
        players,
        problems,
        method=SAMPLING,
        seed=5,
        first_ids=[(first + i) * s.num_nodes for i in range(len(problems))],
    )
    return found, *engines


def text(episode):
    return CHAT.text(episode.attempt)


@pytest.mark.parametrize('select', ['uct', 'puct', 'greedy'])
def test_a_search_finds_the_line_that_the_critic_finds_right(select):
    found, *_ = search(select=select, exploration=0.1, num_nodes=60, children=4)
    for problem, (tree, best) in zip(PROBLEMS, found, strict=True):
        assert text(best) == problem.solution and best.attempt.facts.correct
        assert tree.nodes[tree.best()].ended and tree.samples <= 60


def test_companions_and_parts_change_nothing():
    options = {'values': (('min', 1.0), ('agreement', 0.5)), 'select': 'importance'}
    whole, *_ = search(**options)
    alone = [search([p], i, **options)[0][0] for i, p in enumerate(PROBLEMS)]
    assert [f.best for f in alone] == [f.best for f in whole]
    assert [f.tree.view() for f in alone] == [f.tree.view() for f in whole]


def test_every_token_and_call_is_counted():
    both = (('min', 1.0), ('rollout_scores', 1.0))
    found, lines, turns = search(values=both, num_nodes=10)
    for role in ('attempt', 'critique'):
        engines = (lines, turns)
        for name, counted in (
            ('tokens', 'num_tokens'), ('calls', 'num_requests'), ('processed', 'num_processed')
        ):  # fmt: skip
            total = sum(getattr(f.best.facts, name)[role] for f in found)
            assert total == sum(getattr(e, counted)(role) for e in engines)


class Forcing(episodes.Sampler):
    """Appends words that nobody sampled to critiques and refinements, as tools do."""

    def sample_turns(self, model, conversations, role, *, spec):
        groups = super().sample_turns(model, conversations, role, spec=spec)
        words = fake_engine.TOKENIZER.encode('\n eve')
        forced[role] += sum(len(words) for turns in groups for _ in turns)
        return [[with_appended(CHAT, turn, words) for turn in turns] for turns in groups]


forced = collections.Counter()


@pytest.mark.parametrize('grow', ['line', 'refinement'])
def test_what_a_tool_writes_is_processed_but_not_sampled(grow, monkeypatch):
    forced.clear()
    plain = fake_engine.players
    monkeypatch.setattr(
        fake_engine,
        'players',
        lambda engine: dataclasses.replace(
            plain(engine), sampler=Forcing(engine, CHAT, plain(engine).sampler.max_tokens)
        ),
    )
    results, _, turns = search(grow=grow, num_nodes=6)
    for role in ('critique', 'refinement') if grow == 'refinement' else ('critique',):
        tokens, processed = (
            sum(getattr(r.best.facts, name)[role] for r in results)
            for name in ('tokens', 'processed')
        )
        assert tokens == turns.num_tokens(role) > 0
        assert processed == turns.num_processed(role) + forced[role] > turns.num_processed(role)


def test_one_expansion_of_each_question_is_one_call():
    _, lines, turns = search(num_nodes=8)
    assert lines.calls == 4  # ticks of two lines for three questions
    assert turns.calls == 4 + 1  # their critiques, and the ends of what has not ended


def test_ids_are_used_once():
    _, lines, turns = search(values=(('rollout_scores', 1.0),), num_nodes=10)
    for sampled in (lines, turns):
        ids = [r.id for role, r in sampled.requests if role == 'attempt']
        ends = len(PROBLEMS) if sampled is turns else 0  # the last call's, of another seed
        ids = ids[: len(ids) - ends]
        assert len(set(ids)) == len(ids)
    assert max(r.id for _, r in lines.requests) < 10 * len(PROBLEMS)


@settings(max_examples=15, deadline=None)
@given(
    st.integers(1, 12),
    st.integers(0, 1500),
    st.integers(1, 3),
    st.sampled_from(['line', 'refinement']),
    st.sampled_from(['min', 'rollout_scores', 'rollouts']),
)
def test_no_budget_is_ever_exceeded(num_nodes, extra, expansions, grow, value):
    options = {'num_nodes': num_nodes, 'expansions': expansions, 'children': 3, 'grow': grow}
    options |= {'values': ((value, 1.0),), 'num_rollouts': 1}
    least = dataclasses.replace(SETTINGS, **options).least_tokens(LIMITS)
    found, *_ = search(num_tokens=least + extra, **options)
    for tree, best in found:
        assert 1 <= tree.samples <= num_nodes
        assert tree.tokens == sum(best.facts.tokens.values()) <= least + extra


def test_an_attempt_that_the_budget_cuts_off_is_continued():
    (found, *_), lines, turns = search(
        PROBLEMS[:1], num_nodes=1, lines=lambda *a: fake_engine.next_line(a[1])
    )
    assert text(found.best) == PROBLEMS[0].solution and found.best.attempt.facts.correct
    assert found.best.attempt.step_scores[:2] == (pytest.approx(0.9), None)


def test_a_tree_of_one_child_and_no_choice_is_sampling():
    found, lines, _ = search(expansions=1, children=1, num_nodes=30)
    for (tree, best), problem in zip(found, PROBLEMS, strict=True):
        depth = len(fake_engine.lines_of(problem.solution))
        assert [node.depth for node in tree.nodes] == list(range(depth + 1))
        assert best.attempt.tokens == tree.nodes[-1].episode.attempt.tokens


def test_refinements_are_children_and_become_attempts():
    def wrong_first(role, request, seed):
        if role == 'attempt':
            return fake_engine.ids_of('#### 1' if request.id % 2 else '#### 2')
        return whole_turns(role, request, seed)

    found, _, turns = search(turns=wrong_first, grow='refinement', num_nodes=4, max_depth=3)
    for (tree, best), problem in zip(found, PROBLEMS, strict=True):
        assert [node.depth for node in tree.nodes] == [0, 1, 1, 2]
        assert text(best) == problem.solution
        roles = [turn.role for turn in best.turns]
        assert roles == ['question', 'attempt', 'critique']
        assert best.facts.calls == {'attempt': 2, 'critique': 3, 'refinement': 2}
        assert len(ended_attempts(fake_engine.players(turns), tree)) == 3


# Values


def test_labels_are_shown_to_who_reads_them_only():
    seen = []

    def mine(problem, notes):
        seen.append(notes)
        return 0.5

    mine.reads_rollouts = True
    weighted = (values.Weighted(mine, 1.0), values.Weighted(values.VALUES['rollouts'], 1.0))
    valuation = values.Valuation(weighted, 2, fake_engine.SCORER, False, None)
    engine = fake_engine.RuleEngine(whole_turns)
    players = fake_engine.players(engine)
    root = partial_attempts.empty_attempt(players.sampler, PROBLEMS[0])
    cost = partial_attempts.Cost()
    new = [values.New(PROBLEMS[0], root, False, 3, cost)]
    ((_, value),) = values.value_nodes(valuation, players, new, method=SAMPLING, seed=1)
    assert value == pytest.approx((0.5 + 1.0) / 2)
    assert [r.right for r in seen[0].rollouts] == [None, None]
    assert {r.answer for r in seen[0].rollouts} == {PROBLEMS[0].answer}
    assert cost.calls == {'attempt': 2}


def test_a_value_in_words_is_counted_and_limited():
    def words(problem, notes):
        return [problem.question] if len(notes.written) < limit else float(bool(notes.written))

    words.num_requests = 1
    engine = fake_engine.RuleEngine(whole_turns)
    players = fake_engine.players(engine)
    root = partial_attempts.empty_attempt(players.sampler, PROBLEMS[0])
    valuation = values.Valuation((values.Weighted(words, 2.0),), 1, fake_engine.SCORER, False, None)
    limit, cost = 1, partial_attempts.Cost()
    new = [values.New(PROBLEMS[0], root, False, 3, cost)]
    ((_, value),) = values.value_nodes(valuation, players, new, method=SAMPLING, seed=1)
    assert value == 1.0 and cost.calls == {'critique': 1}
    assert cost.tokens['critique'] == engine.tokens
    most = {'limits': LIMITS, 'num_rollouts': 1, 'always_scores': False}
    assert values.most_tokens(valuation.functions, **most) == LIMITS['attempt']
    limit = 2
    with pytest.raises(ValueError, match='it must return a number after 1 requests'):
        values.value_nodes(valuation, players, new, method=SAMPLING, seed=1)


def test_a_request_about_one_long_attempt_without_room_has_the_value_0():
    def words(problem, notes):
        return [problem.question] if not notes.written else 1.0

    words.num_requests = 1
    players = fake_engine.players(fake_engine.RuleEngine(whole_turns))
    root = partial_attempts.empty_attempt(players.sampler, PROBLEMS[0])
    new = [values.New(PROBLEMS[0], root, False, 3, partial_attempts.Cost())]
    valuation = values.Valuation((values.Weighted(words, 2.0),), 1, fake_engine.SCORER, False, 1)
    ((_, value),) = values.value_nodes(valuation, players, new, method=SAMPLING, seed=1)
    assert value == 0.0


# With a model


@pytest.mark.parametrize('rows', [pytest.param(0, marks=pytest.mark.slow), 4])
def test_one_greedy_child_is_greedy_decoding_with_a_prefix_cache_too(rows):
    shapes = dataclasses.replace(
        test_beam.SHAPES, prefix_cache_rows=rows, prefix_cache_length=64 if rows else 0
    )

    def sampler(*stop_ids):
        return episodes.Sampler(engine.Engine(shapes, stop_ids=stop_ids), CHAT, test_beam.LIMITS)

    model, end, newline = test_beam.model(0), fake_engine.EOS, fake_engine.TOKENIZER.newline_id
    s = dataclasses.replace(SETTINGS, expansions=1, children=1, num_nodes=20, max_depth=20)
    players = ModelPair(sampler(end), model, test_beam.model(9), fake_engine.judge, grammars.LAB)
    questions = [CHAT.question_turns(problem.question) for problem in PROBLEMS]
    spec = SampleSpec(1, test_beam.GREEDY, 0, 0)
    plain = players.sampler.sample_turns(model, questions, 'attempt', spec=spec)
    found = search_trees(
        TreeSearch(s, sampler(end, newline), fake_engine.SCORER),
        players,
        PROBLEMS,
        method=test_beam.GREEDY,
        seed=0,
        first_ids=range(0, 60, 20),
    )
    for (expected,), (tree, best) in zip(plain, found, strict=True):
        assert best.attempt.tokens == expected.tokens
        assert best.attempt.logprobs == pytest.approx(expected.logprobs, abs=1e-4)
        assert best.facts.tokens['attempt'] == len(expected.tokens)
        assert all(len(node.children) <= 1 for node in tree.nodes)
