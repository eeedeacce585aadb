"""Finding models and sets, figures of critics, and what a chat writes."""

import collections
import dataclasses
import itertools
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elenchus.data import records
from elenchus.data.records import Episode, Problem, Step, TurnFacts
from elenchus.data.text import chat as chats
from elenchus.data.text import tokenizer as tokenizers
from elenchus.sampling.test_time import strategies
from elenchus.train.benchmarks import (
    evaluate_command,
    evaluate_sets,
    judge_command,
    judge_figures,
    judge_sets,
    opening,
    players,
)
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run import prompt_sizes
from elenchus.train.stages import evaluate_figures
from elenchus.train.stages.evaluate_figures import EvaluationEpisodes
from tests.support import shipped_configs

SETTINGS = shipped_configs.settings_of('evaluate:default').evaluate


# Models and sets


def test_a_stage_a_model_and_a_missing_model_differ(tmp_path):
    lab = shipped_configs.ROOT / 'data/lab/checkpoint'
    player = players.find_player('model', str(lab))
    assert player.tokenizer_path is None and player.template.name == 'elenchus'
    stage = tmp_path / 'stages' / '01-actor'
    stage.mkdir(parents=True)
    (stage / 'model').symlink_to(lab)
    assert players.find_model('model', str(stage)) == (stage / 'model').absolute()
    for path, message in (
        (tmp_path / 'none', 'folder not found: --model='),
        (tmp_path, f'nearest: {stage}'),
    ):
        with pytest.raises(ValueError, match='--model=') as error:
            players.find_model('model', str(path))
        assert message in str(error.value)
    (tmp_path / 'config.json').write_text('{}')
    (tmp_path / 'model.safetensors').write_text('')
    with pytest.raises(ValueError, match='import it first: python -m scripts.convert import'):
        players.find_model('model', str(tmp_path))
    with pytest.raises(ValueError, match="unknown --template='chatmll'; nearest: 'chatml'"):
        players.find_player('model', str(lab), template='chatmll')


def test_a_tokenizer_of_another_model_is_refused(tmp_path):
    folder = tmp_path / 'model'
    folder.mkdir()
    description = json.loads(
        (shipped_configs.ROOT / 'data/lab/checkpoint/model_config.json').read_text()
    )
    (folder / 'model_config.json').write_text(json.dumps(description | {'tokenizer': 'abc'}))
    (tmp_path / 'tokenizer.json').write_text('{}')
    with pytest.raises(ValueError, match=r'tokenizer abc .*there is .*tokenizer\.json'):
        players.find_player('critic', str(folder))


def test_turns_that_nobody_writes_get_no_room():
    """Without a critic, a conversation ends with the attempt; prompts of critics do not count."""
    config = shipped_configs.get_config('evaluate:mathcritique')
    prompts = build.build(RunSettings, config).prompts
    chat = chats.Chat(tokenizers.lab_tokenizer(), prompts=prompts)
    problems = [Problem(str(i), 'a b ' * i, '', '', 0, 'jsonl') for i in (1, 5, 9)]
    sizes = {
        roles: opening.question_sizes(config, chat, problems, unknown=0, roles=roles)
        for roles in (opening.ROLES, opening.ROLES[:1])
    }
    alone, all_turns = sizes[opening.ROLES[:1]], sizes[opening.ROLES]
    longest = max(len(chat.context(chat.question_turns(p.question), 'attempt')) for p in problems)
    start = alone.whole - config.sampling.attempt_tokens - chat.overhead
    assert longest <= start <= longest + prompt_sizes.BORDER_TOKENS + chat.overhead
    assert alone.prompts == (2 * start,)  # a row for two of the longest
    assert len(all_turns.prompts) == 3
    critique = config.sampling.critique_tokens + config.sampling.refinement_tokens
    assert all_turns.whole >= alone.whole + critique
    for roles, size in sizes.items():
        fitted = config.copy_and_resolve_references().unlock()
        opening.fit_lengths(fitted, size, longest=8192)
        engine = fitted.sampling.engine
        assert engine.max_length >= size.whole and len(engine.decode_cache_lengths) == len(roles)
        assert max(engine.decode_cache_lengths) < engine.max_length
        shortest, *_, longest = fitted.sampling.score.lengths
        assert shortest <= size.scored // 4 + opening.MULTIPLE and size.scored <= longest


def bench_of(model):
    """A bench of a saved model, of which only the description is read."""
    config = shipped_configs.get_config('evaluate:default')
    player = players.find_player('model', str(model))
    opening.fit_to_player(config, player, '')
    return opening.Bench(
        opening.Models(str(model), critic=str(model)),
        build.build(RunSettings, config),
        config,
        chats.Chat(player.tokenizer, player.template),
        player,
        actor=None,
        critic=None,
        verifier=None,
    )


def test_other_problems_or_parameters_at_the_same_paths_are_no_continuation(tmp_path):
    description = json.loads(
        (shipped_configs.ROOT / 'data/lab/checkpoint/model_config.json').read_text()
    )
    file = tmp_path / 'model_config.json'
    problem = Problem('own/1', '3 + 4?', '7', '', 0, 'jsonl')
    results = []

    def evaluate(fingerprint, *problems):
        file.write_text(json.dumps(description | {'fingerprint': fingerprint}))
        places, rows = {'own': 'own.jsonl, 1 problems'}, {'own': problems}
        with bench_of(tmp_path).directory(tmp_path / 'out', places, rows=rows) as directory:
            stage = directory.stage('own')
            results.append(stage.read_summary())
            if results[-1] is None:
                with stage.recorded() as summary:
                    summary['greedy'] = 1.0

    evaluate('a', problem)
    evaluate('a', problem)
    assert results[0] is None and results[1]['greedy'] == 1.0
    with pytest.raises(ValueError, match=r'field bench\.data\.own was .* now '):
        evaluate('a', dataclasses.replace(problem, answer='8'))
    with pytest.raises(
        ValueError, match=r'field bench\.contents\.critic was .*bench\.contents\.model was '
    ):
        evaluate('b', problem)


# Figures of critics


def episode(first_error, located, verdict, correct=False):
    chat = chats.Chat(tokenizers.lab_tokenizer())
    attempt = chat.text_turn('attempt', 'ben 3\n ada 4').with_facts(
        correct=correct, first_error=first_error, steps_correct=first_error is None
    )
    critique = chat.text_turn('critique', 'ben 3').with_facts(located=located, verdict=verdict)
    return Episode('p', 0, (*chat.question_turns('ben ?'), attempt, critique))


def test_f1_is_the_harmonic_mean_and_constant_critics_have_none():
    greedy = [
        episode(0, 0, False),  # found
        episode(1, 0, False),  # called wrong at another step
        episode(1, 1, False, correct=True),  # an error that the outcome hides, found
        episode(1, None, True, correct=True),  # and one passed
        episode(None, None, True, correct=True),  # passed
        episode(None, None, None, correct=True),  # unreadable
    ]
    summary = judge_figures.summarise(SETTINGS, greedy, [])
    rows = summary['critics']
    found, passed = 2 / 4, 1 / 2
    assert rows['greedy']['f1'][0] == pytest.approx(2 * found * passed / (found + passed))
    assert rows['greedy']['f1'][0] == pytest.approx(summary['critic']['processbench_f1'])
    assert rows['greedy']['accuracy'][0] == pytest.approx(3 / 6)
    assert rows['always right']['f1'][0] == 0 and rows['always right']['passed'][0] == 1
    assert rows['always right']['accuracy'][0] == pytest.approx(2 / 6)
    assert rows['always wrong, at the first step']['found'][0] == pytest.approx(1 / 4)
    assert rows['greedy']['readable'] == pytest.approx(5 / 6)
    assert rows['greedy']['verdict'] == pytest.approx(4 / 6)
    assert summary['hidden_errors'] == {'solutions': 2, 'flagged': 0.5, 'located': 0.5}
    table = judge_command.table({'x': summary})
    assert table.count('\n') == 4 and '| always right' in table


def test_unreadable_critiques_have_no_vote_and_ties_are_shared():
    votes = [
        [episode(1, 1, False), episode(1, None, None), episode(1, 1, False)],
        [episode(None, None, True), episode(None, 0, False), episode(None, None, None)],
    ]
    rows = judge_figures.vote_rows(SETTINGS, [1, judge_figures.NOTHING], votes)
    assert list(rows) == ['sampled', 'majority@2', 'majority@3']
    assert rows['majority@3']['found'][0] == 1.0
    assert rows['majority@3']['passed'][0] == 0.5
    assert rows['sampled']['found'][0] == pytest.approx(2 / 3)
    assert rows['majority@3']['tokens'] == pytest.approx(3 * rows['sampled']['tokens'])


def test_without_wrong_or_right_solutions_there_is_no_f1():
    for truth in (0, None):
        row = judge_figures.summarise(SETTINGS, [episode(truth, None, True)], [])['critics'][
            'greedy'
        ]
        assert row['f1'] is None
    assert judge_figures.matthews(
        [0, judge_figures.NOTHING], [0, judge_figures.NOTHING]
    ) == pytest.approx(1)
    assert judge_figures.matthews([None, None], [0, judge_figures.NOTHING]) == pytest.approx(-1)


def test_a_solution_has_exactly_its_steps(tmp_path):
    model = tokenizers.train_tokenizer(['a b c d e <paragraph_0>\n'] * 50, vocab_size=300,
                                       model_type='bpe')  # fmt: skip
    chat = chats.Chat(tokenizers.SentencePieceTokenizer.from_bytes(model))
    turn = judge_sets.attempt_turn(chat, ['a b\nc', 'd', 'e'])
    starts = (0, *turn.step_ends)
    texts = [chat.tokenizer.decode(turn.tokens[a:b]).strip()
             for a, b in zip(starts, turn.step_ends, strict=False)]  # fmt: skip
    assert texts == ['a b c', 'd', 'e'] and turn.step_ends[-1] == len(turn.tokens)
    from elenchus.data.text.prompts import Prompt, Prompts

    tagged = chats.Chat(
        chat.tokenizer, prompts=Prompts(critique=Prompt('', '{question} {paragraphs}'))
    )
    turn = judge_sets.attempt_turn(tagged, ['a b\nc', 'd'])
    assert len(turn.steps) == 2
    context = tagged.tokenizer.decode(tagged.context((*chat.question_turns('a'), turn), 'critique'))
    assert '<paragraph_0>\na b\nc\n</paragraph_0>' in context
    assert isinstance(turn.steps[0], Step) and turn.facts == TurnFacts()


def test_the_score_of_mr_gsm8k_has_bounds_because_reasons_are_not_judged():
    nothing = judge_figures.NOTHING
    truths = [0, 0, 1, 2, nothing, nothing]
    labels = [0, 1, 1, nothing, nothing, None]  # two at the right step, one passed, one unreadable
    tp, fn, tn, fp = 3, 1, 1, 1
    denominator = ((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)) ** 0.5
    low = 0.2 * (tp * tn - fp * fn) / denominator + 0.3 * 2 / 4
    score = judge_figures.mr_score(labels, truths)
    assert score == pytest.approx({'step': 0.5, 'low': low, 'high': low + 0.5 * 2 / 4})
    assert judge_figures.mr_score([1, 0], [0, nothing])['low'] == 0  # a correlation below 0 is 0
    assert judge_figures.mr_score([0, nothing], [0, nothing])['high'] == pytest.approx(1)
    for constant in ([0, 1], [nothing, nothing]):  # only wrong or only right solutions
        assert judge_figures.mr_score([0, nothing], constant) is None


# Estimates


def attempts_of(answers):
    """(problem, an attempt with each of the answers); 7 is right."""
    chat = chats.Chat(tokenizers.lab_tokenizer())
    turns = [
        chat.text_turn('attempt', 'ben 3').with_facts(answer=a, correct=a == '7') for a in answers
    ]
    episodes = [
        strategies.with_cost(chat, Episode('p', i, (*chat.question_turns('ben ?'), turn)))
        for i, turn in enumerate(turns)
    ]
    return Problem('p', 'ben ?', '7', '7', 0, 'jsonl'), episodes


def test_attempts_without_a_critic_have_accuracy_and_majorities():
    problem, episodes = attempts_of(['7', '8', '7', '7'])
    s = dataclasses.replace(SETTINGS, num_attempts=4)
    figures = evaluate_sets.majority_figures(s, [problem], episodes)
    shares = {arm: of_levels['all'][0] for arm, of_levels in figures['accuracy'].items()}
    assert shares == pytest.approx({'attempt': 0.75, 'majority@2': 0.75, 'majority@4': 1.0})


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.sampled_from(['7', '8', '9', None]), min_size=1, max_size=6),
    st.integers(1, 6),
)
def test_majority_and_pass_at_k_are_means_over_all_sets_of_attempts(answers, k):
    k = min(k, len(answers))
    problem, episodes = attempts_of(answers)
    s = dataclasses.replace(SETTINGS, num_attempts=len(answers))
    groups = records.group_episodes([problem], episodes)
    right = evaluate_figures.right_answers(groups, rounds={}, oracle={})
    voted = evaluate_figures.plain_majority(s, EvaluationEpisodes(groups, {}, {}, [], [], right))(k)
    wins, passes = [], []
    for chosen in itertools.combinations(answers, k):
        counts = collections.Counter(a for a in chosen if a is not None)
        best = [a for a in counts if counts[a] == max(counts.values())]
        wins.append(best.count('7') / len(best) if best else 0.0)
        passes.append('7' in chosen)
    assert voted.right[0] == pytest.approx(sum(wins) / len(wins))
    if k > 1:
        table = evaluate_sets.pass_at_k(s, [problem], groups)
        sizes = {f'pass@{k}': pytest.approx(sum(passes) / len(passes))}
        assert {n: v['all'][0] for n, v in table.items() if n in sizes} in ({}, sizes)


# The table


def test_a_table_has_a_row_for_each_way_to_answer():
    level = {'all': [0.5, 0.4, 0.6]}
    summary = {
        'accuracy': {'greedy': level, 'majority@2': {'all': [0.5, None, None]}},
        'tokens_per_answer': {'greedy': 61.4},
        'harness': {'strict-match': [0.1, 0.0, 0.2]},
        'greedy_difference': {'all': [-0.1, -0.2, 0.0]},
    }
    table = evaluate_command.table({'own': summary})
    assert '| own | greedy ' in table and '| 50.0 ' in table and '40.0 to 60.0' in table
    assert 'strict-match of lm-eval' in table and '-10.0' in table
