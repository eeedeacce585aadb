"""The stage `critique` with scripted models: its files, how it resumes, and what it reports."""

import collections
import itertools
import json

import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.critiques import record_files
from elenchus.data.files import episode_files
from elenchus.data.grading import judge, verify
from elenchus.data.lab import forms, pretraining, task
from elenchus.train.run import runner
from elenchus.train.stages import critique_data, data_card
from tests.support import fake_engine, fake_run
from tests.support.fake_engine import CHAT

PROBLEMS = [forms.generate_problem(seed=0, split='train', index=i) for i in range(20)]
ALL_ON = {
    'num_problems': len(PROBLEMS),
    'num_attempts': 3,
    'num_relocated': 1,
    'num_inserted': 2,
    'filter_samples': 3,
    'filter_successes': 1,
}
CRITIC = {'annotator': 'model', 'annotator_path': 'saved/critic/model'}


def is_correct(episode):
    return episode.attempt.facts.correct


def verdict_of(episode):
    return episode.critique.facts.verdict


def construction_of(episode):
    return episode.facts.construction


def location_of(episode):
    return episode.facts.location


def mistake_of(episode):
    return episode.facts.mistake


def refinement_successes(episode):
    """The right refinements of an attempt; None if it was not refined."""
    return episode.critique.facts.refinement_successes


def make_path(construction, mistake):
    """A wrong attempt whose judge knows no kinds of mistakes."""
    turn = records.Turn('attempt', (6,), (1,), facts=records.TurnFacts(correct=False))
    facts = records.EpisodeFacts(construction=construction, mistake=mistake)
    return records.Episode('p', 2, (turn,), facts)


@pytest.fixture(scope='module')
def judging():
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield judge.make_judge('lab', verifier)


def play(request):
    """Works the question out, and errs on two of five requests, by their ids."""
    question = request.texts['question']
    if request.role == 'critique':
        is_critic = request.model.name == 'critic'
        return 'answer : wrong' if is_critic else pretraining.worked_solution(question)
    lines = task.solve(question).split('\n')
    answer = int(lines[-1][-1]) + (request.id % 5 > 2) * (1 + request.id % 9)
    return '\n'.join([*lines[request.opening.count('\n') : -1], f' #### {answer % 10}'])


def run_stage(workdir, judging, *, answer=play, engine=None, **changes):
    """Runs the stage with models that answer by a script; returns its summary and folder."""
    config = lab_config.get_config('smoke')
    config.critique.update(ALL_ON | changes)
    config.sampling.part_size = 10
    run = fake_run.make_run(
        config,
        workdir,
        fake_run.make_inputs(PROBLEMS, judge=judging),
        whole=engine or fake_engine.AnsweringEngine(answer),
        complete=('base', 'actor'),
    )
    return runner.run_stage(run, 'critique'), run.directory.stage('critique').path


def episodes_of(folder):
    return list(episode_files.read_episodes(folder / 'episodes'))


@pytest.fixture(scope='module')
def oracle(tmp_path_factory, judging):
    return run_stage(tmp_path_factory.mktemp('oracle'), judging)


def test_every_episode_has_a_critique_and_says_where_it_comes_from(oracle):
    summary, folder = oracle
    episodes = episodes_of(folder)
    assert len(episodes) == summary['episodes'] > 0
    assert set(map(construction_of, episodes)) == {'RG1', 'RG2', 'RG3'}
    for episode in episodes:
        assert [turn.role for turn in episode.turns] == ['question', 'attempt', 'critique']
        assert (location_of(episode) is None) == (construction_of(episode) == 'RG1')
        assert (mistake_of(episode) is None) == (construction_of(episode) != 'RG3')
        assert is_correct(episode) or refinement_successes(episode) >= 1
        question = next(p.question for p in PROBLEMS if p.id == episode.problem_id)
        expected = task.judge(question, CHAT.text(episode.turn('attempt'))).critique
        assert CHAT.text(episode.turn('critique')) == expected


def test_records_are_the_episodes_as_text(oracle):
    folder = oracle[1]
    saved = record_files.read(folder / 'records.jsonl')
    for record, episode in zip(saved, episodes_of(folder), strict=True):
        assert record.response == CHAT.text(episode.turn('attempt'))
        assert record.critique == CHAT.text(episode.turn('critique'))
        assert (record.problem_id, record.level) == (episode.problem_id, episode.level)
        assert record.correct == is_correct(episode)
        assert record.refinements == (None if record.correct else 3)
        if record.refinement is not None:
            assert record.refinement == task.solve(record.question)


def test_the_card_accounts_for_every_path(oracle):
    summary, folder = oracle
    card = json.loads((folder / 'data_card.json').read_text())
    paths = list(episode_files.read_episodes(folder / 'paths' / 'episodes'))
    assert card['all']['paths'] == len(paths) and card['all']['kept'] == summary['episodes']
    assert card['all']['kept_flawed'] == summary['wrong']
    for grouping in ('construction', 'level', 'kind'):
        for counted in (card[grouping].values(), [card['all']]):
            for group in counted:
                assert group['paths'] == group['kept'] + sum(group['left_out'].values())
        for field in ('paths', 'flawed', 'kept', 'kept_flawed'):
            assert sum(group[field] for group in card[grouping].values()) == card['all'][field]
    assert card['construction']['RG1']['paths'] == 3 * len(PROBLEMS)
    assert set(card['level']) == set('12345') and 'arithmetic' in card['kind']
    assert sum(card['tokens_sampled'].values()) == summary['tokens_sampled']
    assert card['tokens_sampled'].keys() == {'paths', 'criticised', 'refined'}
    assert card['tokens_sampled']['criticised'] == 0 < card['tokens_sampled']['refined']
    text = (folder / 'data_card.md').read_text()
    assert all(f'| {group} | ' in text for group in ('RG1', 'RG2', 'RG3', '5', 'skipped', 'all'))


def test_a_stage_stopped_anywhere_goes_on_to_the_same_data(oracle, tmp_path, judging):
    whole, folder = oracle

    class Stopped(Exception):
        pass

    stops = 0
    for requests in itertools.count(30, step=15):
        ids = iter(range(requests))

        def answer(request, ids=ids):
            if next(ids, None) is None:
                raise Stopped
            return play(request)

        try:
            summary, again = run_stage(tmp_path, judging, answer=answer)
            break
        except Stopped:
            stops += 1
    assert stops > 3
    assert summary | {'seconds': 0} == whole | {'seconds': 0}
    assert episodes_of(again) == episodes_of(folder)
    for name in ('records.jsonl', 'data_card.json', 'data_card.md'):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


@pytest.mark.slow
def test_a_random_filter_drops_as_many_flawed_attempts_of_each_level(tmp_path, judging):
    """It samples the same refinements, but keeps critiques that they do not support."""
    strict = {'filter_successes': 2}
    whole, folder = run_stage(tmp_path / 'refinements', judging, **strict)
    summary, drawn = run_stage(tmp_path / 'random', judging, **strict, filter='random')
    cards = [json.loads((f / 'data_card.json').read_text()) for f in (folder, drawn)]
    by_refinements, at_random = (card['level'] for card in cards)
    assert summary['tokens_sampled'] == whole['tokens_sampled']
    assert cards[0]['all']['left_out']['refinements'] > 0
    assert 'refinements' not in cards[1]['all']['left_out']
    for level, counts in by_refinements.items():
        others = at_random[level]['left_out']
        assert others.get('random', 0) == counts['left_out'].get('refinements', 0)
        assert others.get('verdict', 0) == counts['left_out'].get('verdict', 0)
        assert at_random[level]['kept_flawed'] == counts['kept_flawed']
    flawed = [e for e in episodes_of(drawn) if not is_correct(e)]
    assert any(refinement_successes(e) < 2 for e in flawed)
    _, again = run_stage(tmp_path / 'again', judging, **strict, filter='random')
    assert episodes_of(again) == episodes_of(drawn)


def test_rollouts_say_nearly_what_the_oracle_says(tmp_path, judging):
    """The actor rolls out as it errs here, on two of five; the verdicts are final ones."""
    _, folder = run_stage(
        tmp_path, judging, annotator='monte_carlo', num_rollouts=5, rollout_threshold=0.5,
        filter_samples=0, filter_successes=0,
    )  # fmt: skip
    episodes = episodes_of(folder)
    agreed = [verdict_of(e) == is_correct(e) for e in episodes]
    assert len(agreed) > 50 and all(agreed)
    assert all(refinement_successes(e) is None for e in episodes)
    spent = json.loads((folder / 'data_card.json').read_text())['tokens_sampled']
    assert spent.keys() == {'paths', 'criticised'} and spent['criticised'] > spent['paths']


def test_a_checkpoint_criticises_and_the_filter_decides(tmp_path, judging):
    _, folder = run_stage(tmp_path, judging, **CRITIC)
    episodes = episodes_of(folder)
    assert {CHAT.text(e.turn('critique')) for e in episodes} == {'answer : wrong'}
    assert not any(map(is_correct, episodes))
    card = json.loads((folder / 'data_card.json').read_text())
    assert card['all']['left_out']['verdict'] > 0


def test_critiques_can_be_brought_in_a_file(oracle, tmp_path, judging):
    """Those of an earlier run come back; paths that it left out have none."""
    _, folder = oracle
    path = str(folder / 'records.jsonl')
    summary, again = run_stage(tmp_path, judging, annotator='file', annotator_path=path)
    assert episodes_of(again) == episodes_of(folder)
    card = json.loads((again / 'data_card.json').read_text())
    assert card['all']['left_out'].get('refinements') is None
    assert summary['episodes'] == oracle[0]['episodes']


@pytest.mark.parametrize(
    ('answer', 'changes', 'words'),
    [
        (
            lambda request: 'is',
            {},
            ("'refinements': 5", 'lower critique.filter_successes', 'new --workdir'),
        ),
        (
            lambda request: task.solve(request.texts['question']),
            {'num_relocated': 0, 'num_inserted': 0},
            ("'repeated': 40", "'share': 20", 'raise critique.num_inserted'),
        ),
        (
            lambda request: 'is',
            CRITIC,
            ("'no_critique'", 'use another critique.annotator'),
        ),
    ],
)
def test_if_all_attempts_are_rejected_the_error_says_why_and_what_helps(
    tmp_path, judging, answer, changes, words
):
    with pytest.raises(ValueError, match='all .* attempts were rejected') as error:
        run_stage(tmp_path, judging, answer=answer, **changes)
    assert all(word in str(error.value) for word in words), error.value
    assert '\n' not in str(error.value)


def test_requests_of_no_two_parts_share_noise(tmp_path, judging):
    """Within a phase, which has a seed, every request has an id of its own."""
    ids_of = collections.defaultdict(list)

    class RecordingEngine(fake_engine.AnsweringEngine):
        def generate(self, model, requests, *, method, seed):
            ids_of[model.name, seed] += [request.id for request in requests]
            return super().generate(model, requests, method=method, seed=seed)

    run_stage(tmp_path, judging, engine=RecordingEngine(play), annotator='monte_carlo')
    actors = [ids for (name, _), ids in ids_of.items() if name == '01-actor']
    assert len(actors) == 5
    assert all(len(set(ids)) == len(ids) for ids in actors)


def test_kinds_that_a_judge_cannot_tell_are_unknown():
    paths = [make_path('RG1', mistake=None), make_path('RG3', mistake='number')]
    card = data_card.count_attempts(iter(paths), {1: 'refinements'})
    assert list(card['kind']) == ['number', 'unknown']
    assert card['kind']['number']['left_out'] == {'refinements': 1}


def test_a_critique_longer_than_a_critic_may_write_leaves_no_room_for_refinements():
    turn = CHAT.text_turn('critique', '= = =')
    episode = records.Episode('p', 1, (turn,), {})
    assert critique_data.reject_longer_than(4)([episode]) == [None]
    assert critique_data.reject_longer_than(3)([episode]) == ['too_long']
