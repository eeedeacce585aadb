"""Rounds that explore made problems, keep a memory, train refinements and measure themselves."""

import json

import pytest

from elenchus.data import records
from elenchus.data.files import episode_files
from elenchus.data.lab import task
from elenchus.sampling import slots
from elenchus.train.run import runner
from tests.support import fake_engine
from tests.train.stages.test_improve import actor_examples, fits, make_run  # noqa: F401

FUNCTIONS = """
def other(problem, notes):
    digits = str.maketrans('0123456789', '1234567890')
    if not notes.written:
        return [problem.question]
    return [(problem.question.translate(digits), notes.written[0])]


def handbook(problem, notes):
    return ' '.join(sorted(notes.memory)) or None


def learn(problem, notes):
    right = sum(notes.accepted)
    return {problem.question.split()[0]: f'{right} of {len(notes.responses)}'}


handbook.learn = learn


def lowest(rounds):
    kept = [summary['kept'] for summary in rounds]
    rounds.clear()
    return {'lowest': min(kept), 'unknown': float('nan')}
"""


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(FUNCTIONS)
    yield f'{path}:'.__add__
    slots.load.cache_clear()


def folder_of(run, stage, number=1):
    return run.directory.stage(stage).path / f'round-{number}'


def test_derived_problems_are_explored_beside_the_others(tmp_path, fits, mine):  # noqa: F811
    run = make_run(tmp_path / 'run', 'vanilla', make=mine('other'), num_problems=4)
    summary = runner.run_stage(run, 'vanilla')
    for number, figures in enumerate(summary['rounds'], 1):
        folder = folder_of(run, 'vanilla', number)
        stored = json.loads((folder / 'derived_problems.json').read_text())
        derived = [records.Problem(**fields) for fields in stored['problems']]
        assert figures['derived_problems'] == stored['counts']
        assert len(derived) == stored['counts']['new'] > 0
        assert all(p.answer == task.solve(p.question).rsplit(' ', 1)[1] for p in derived)
        explored = list(episode_files.read_episodes(folder / 'explored' / 'episodes'))
        assert {p.id for p in derived} < {e.problem_id for e in explored}
        assert figures['tokens_sampled'] > stored['tokens'] > 0
    kept = list(episode_files.read_episodes(folder_of(run, 'vanilla') / 'episodes'))
    assert any('/derived/0-' in e.problem_id for e in kept)


def test_a_round_that_is_continued_has_the_same_problems(tmp_path, fits, mine):  # noqa: F811
    run = make_run(tmp_path / 'run', 'vanilla', make=mine('other'), num_problems=4, num_rounds=1)
    folder = folder_of(run, 'vanilla')
    folder.mkdir(parents=True)
    problem = fake_engine.problems(9)[8]
    stored = {
        'problems': [{**vars(problem), 'id': 'stored'}],
        'counts': {'new': 1},
        'tokens': 5,
    }
    (folder / 'derived_problems.json').write_text(json.dumps(stored))
    summary = runner.run_stage(run, 'vanilla')
    explored = list(episode_files.read_episodes(folder / 'explored' / 'episodes'))
    assert sum(e.problem_id == 'stored' for e in explored) > 0
    assert not any('/derived/' in e.problem_id for e in explored)
    assert summary['derived_problems'] == {'new': 1}


def test_without_a_maker_there_is_no_figure_and_no_file(tmp_path, fits):  # noqa: F811
    run = make_run(tmp_path, 'vanilla', num_rounds=1)
    summary = runner.run_stage(run, 'vanilla')
    assert not {'derived_problems', 'memory', 'own_measures', 'accepted_right'} & set(summary)
    folder = folder_of(run, 'vanilla')
    assert not (folder / 'derived_problems.json').exists() and not (folder / 'memory.json').exists()


def test_the_memory_of_a_round_is_read_in_the_next(tmp_path, fits, mine):  # noqa: F811
    explore = {'player_guide': mine('handbook'), 'min_correct': 9, 'num_guided_rounds': 1}
    run = make_run(tmp_path / 'run', 'self_guided', explore=explore, num_problems=4)
    first, second = runner.run_stage(run, 'self_guided')['rounds']
    names = {p.question.split()[0] for p in run.inputs.train_problems[:4]}
    assert first['memory'] == second['memory'] == len(names)
    stored = [
        json.loads((folder_of(run, 'self_guided', number) / 'memory.json').read_text())['memory']
        for number in (1, 2)
    ]
    attempts = run.settings.improve.explore.num_attempts
    assert set(stored[0]) == names
    assert all(text.endswith(f' of {attempts}') for text in stored[0].values())
    assert stored[1] == stored[0]  # a name keeps its first text
    guides = []
    for number in (1, 2):
        folder = folder_of(run, 'self_guided', number) / 'explored' / 'episodes'
        explored = list(episode_files.read_episodes(folder))
        guides.append(
            {fake_engine.CHAT.text(t) for e in explored for t in e.turns if t.role == 'guide'}
        )
    assert guides == [set(), {' '.join(sorted(names))}]


def test_refinements_are_trained_behind_what_they_answer(tmp_path, fits):  # noqa: F811
    rows = {}
    for trains in (('response',), ('response', 'refinement'), ('refinement',)):
        folder = tmp_path / '-'.join(trains)
        run = make_run(folder, 'critique_in_the_loop', trains=trains, num_rounds=1)
        runner.run_stage(run, 'critique_in_the_loop')
        examples = fits[-1][1][len(actor_examples(run)) :]
        kept = list(
            episode_files.read_episodes(folder_of(run, 'critique_in_the_loop') / 'episodes')
        )
        refined = [e for e in kept if e.attempt.facts.origin == 'refinement']
        rows[trains] = [tuple(e.tokens.tolist()) for e in examples]
        count = {'response': len(kept), 'refinement': len(refined)}
        assert len(examples) == sum(count[name] for name in trains) and refined
        roles = [records.ROLES[e.roles[e.loss_mask > 0].max()] for e in examples]
        assert roles == [r for r, n in (('attempt', 'response'), ('refinement', 'refinement'))
                         for _ in range(count[n]) if n in trains]  # fmt: skip
    assert rows['response', 'refinement'] == rows['response',] + rows['refinement',]


@pytest.mark.parametrize('trains', [(), ('response', 'response')])
def test_what_cannot_be_trained_names_the_nearest(tmp_path, trains):
    with pytest.raises(ValueError, match=r"improve\.trains=.*; nearest: \('response',\)"):
        make_run(tmp_path, 'vanilla', trains=trains)


def test_figures_of_all_rounds_are_stored_by_name(tmp_path, fits, mine):  # noqa: F811
    run = make_run(tmp_path / 'run', 'vanilla', measures=(mine('lowest'),))
    summary = runner.run_stage(run, 'vanilla')
    kept = [figures['kept'] for figures in summary['rounds']]
    assert summary['own_measures'] == {'lowest': {'lowest': min(kept), 'unknown': None}}
    assert len(summary['rounds']) == 2  # the function has its own copy


def test_how_much_of_what_was_accepted_is_right(tmp_path, fits):  # noqa: F811
    """The scripted critic is the oracle, so what it accepts is right."""
    run = make_run(tmp_path, 'critique_in_the_loop', explore={'accept': 'critic'}, num_rounds=1)
    summary = runner.run_stage(run, 'critique_in_the_loop')
    assert summary['accepted_right'] == 1.0 and summary['kept'] > 0
    kept = list(episode_files.read_episodes(folder_of(run, 'critique_in_the_loop') / 'episodes'))
    assert all(e.attempt.facts.accepted and e.attempt.facts.verdict for e in kept)
