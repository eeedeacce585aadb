"""The critique stage, played by scripted models: what it leaves, resumes and tells."""

import collections
import itertools
import json

import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.critiques import grammars, record_files
from elenchus.data.files import episode_files
from elenchus.data.grading import judge, verify
from elenchus.data.lab import pretraining, task
from elenchus.data.text import chat
from elenchus.train.run import workspace
from elenchus.train.stages import critique
from tests.support import fake_engine, fake_workspace
from tests.support.fake_engine import CHAT, TOKENIZER

PROBLEMS = [task.generate_problem(seed=0, split='train', index=i) for i in range(20)]
ALL_ON = {
    'num_problems': len(PROBLEMS),
    'num_attempts': 3,
    'num_relocated': 1,
    'num_inserted': 2,
    'filter_samples': 3,
    'filter_successes': 1,
}


@pytest.fixture(scope='module')
def judging():
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        yield judge.make_judge('lab', verifier)


def play(asked):
    """Works the question out, and errs on two of five requests, by their ids."""
    question = asked.texts['question']
    if asked.role == 'critique':
        return (
            'answer : wrong' if asked.model == 'critic' else pretraining.worked_solution(question)
        )
    lines = task.solve(question).split('\n')
    answer = int(lines[-1][-1]) + (asked.id % 5 > 2) * (1 + asked.id % 9)
    return '\n'.join([*lines[asked.opening.count('\n') : -1], f' #### {answer % 10}'])


class Played(workspace.Workspace):
    """A workspace whose models are names and whose engine is a script."""

    def __init__(self, workdir, judging, answer=play, **changes):
        config = lab_config.get_config('smoke')
        config.critique.update(ALL_ON | changes)
        config.sampling.part_size = 10
        fake_workspace.furnish(self, config, workdir)
        self.judge, self.answer = judging, answer
        self.tokenizer, self.chat, self.grammar = TOKENIZER, CHAT, grammars.LAB
        self.train_problems, self.spent = PROBLEMS, 0

    def sampler(self):
        return fake_engine.make_sampler(self.answer)

    def load_model(self, stage):
        return stage

    def load_checkpoint(self, folder):
        return 'critic'


def run(tmp_path, judging, **options):
    played = Played(tmp_path, judging, **options)
    told = played.run_stage('critique', critique.critique)
    return told, played.stage_folder('critique')


def episodes_of(folder):
    return list(episode_files.read_episodes(folder / 'episodes'))


@pytest.fixture(scope='module')
def oracle(tmp_path_factory, judging):
    return run(tmp_path_factory.mktemp('oracle'), judging)


def test_every_episode_has_a_critique_and_says_where_it_comes_from(oracle):
    told, folder = oracle
    episodes = episodes_of(folder)
    assert len(episodes) == told['episodes'] > 0
    made = collections.Counter(e.outcome['construction'] for e in episodes)
    assert set(made) == {'RG1', 'RG2', 'RG3'}
    for episode in episodes:
        outcome = episode.outcome
        assert [turn.role for turn in episode.turns] == ['question', 'attempt', 'critique']
        assert (outcome['location'] is None) == (outcome['construction'] == 'RG1')
        assert (outcome['mistake'] is None) == (outcome['construction'] != 'RG3')
        assert outcome['correct'] or outcome['refinement_successes'] >= 1
        question = next(p.question for p in PROBLEMS if p.id == episode.problem_id)
        expected = task.judge(question, CHAT.text(episode.turn('attempt'))).critique
        assert CHAT.text(episode.turn('critique')) == expected


def test_records_are_the_episodes_as_text(oracle):
    folder = oracle[1]
    told = record_files.read_jsonl(folder / 'records.jsonl')
    for record, episode in zip(told, episodes_of(folder), strict=True):
        assert record.response == CHAT.text(episode.turn('attempt'))
        assert record.critique == CHAT.text(episode.turn('critique'))
        assert (record.problem_id, record.level) == (episode.problem_id, episode.level)
        assert record.correct == episode.outcome['correct']
        assert record.refinements == (None if record.correct else 3)
        if record.refinement is not None:
            assert record.refinement == task.solve(record.question)


def test_the_card_accounts_for_every_path(oracle):
    told, folder = oracle
    card = json.loads((folder / 'data_card.json').read_text())
    paths = list(episode_files.read_episodes(folder / 'paths' / 'episodes'))
    assert card['all']['paths'] == len(paths) and card['all']['kept'] == told['episodes']
    assert card['all']['kept_flawed'] == told['wrong']
    for grouping in ('construction', 'level', 'kind'):
        for counted in (card[grouping].values(), [card['all']]):
            for group in counted:
                assert group['paths'] == group['kept'] + sum(group['left_out'].values())
        for field in ('paths', 'flawed', 'kept', 'kept_flawed'):
            assert sum(group[field] for group in card[grouping].values()) == card['all'][field]
    assert card['construction']['RG1']['paths'] == 3 * len(PROBLEMS)
    assert set(card['level']) == set('12345') and 'arithmetic' in card['kind']
    assert sum(card['tokens_sampled'].values()) == told['tokens_sampled']
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
        left = [requests]

        def answer(asked, left=left):
            left[0] -= 1
            if left[0] < 0:
                raise Stopped
            return play(asked)

        try:
            told, again = run(tmp_path, judging, answer=answer)
            break
        except Stopped:
            stops += 1
    assert stops > 3
    assert told | {'seconds': 0} == whole | {'seconds': 0}
    assert episodes_of(again) == episodes_of(folder)
    for name in ('records.jsonl', 'data_card.json', 'data_card.md'):
        assert (again / name).read_bytes() == (folder / name).read_bytes()


def test_rollouts_say_nearly_what_the_oracle_says(tmp_path, judging):
    """The actor rolls out as it errs here, on two of five; the verdicts are final ones."""
    told, folder = run(
        tmp_path, judging, annotator='monte_carlo', num_rollouts=5, rollout_threshold=0.5,
        filter_samples=0, filter_successes=0,
    )  # fmt: skip
    episodes = episodes_of(folder)
    agreed = [e.outcome['verdict'] == e.outcome['correct'] for e in episodes]
    assert len(agreed) > 50 and all(agreed)
    assert all('refinement_successes' not in e.outcome for e in episodes)
    spent = json.loads((folder / 'data_card.json').read_text())['tokens_sampled']
    assert spent.keys() == {'paths', 'criticised'} and spent['criticised'] > spent['paths']


def test_a_checkpoint_criticises_and_the_filter_decides(tmp_path, judging):
    _, folder = run(tmp_path, judging, annotator='model', annotator_path='somewhere')
    episodes = episodes_of(folder)
    assert {CHAT.text(e.turn('critique')) for e in episodes} == {'answer : wrong'}
    assert not any(e.outcome['correct'] for e in episodes)
    card = json.loads((folder / 'data_card.json').read_text())
    assert card['all']['left_out']['verdict'] > 0


def test_critiques_can_be_brought_in_a_file(oracle, tmp_path, judging):
    """Those of an earlier run come back; paths that it left out have none."""
    _, folder = oracle
    brought = str(folder / 'records.jsonl')
    told, again = run(tmp_path, judging, annotator='file', annotator_path=brought)
    assert episodes_of(again) == episodes_of(folder)
    card = json.loads((again / 'data_card.json').read_text())
    assert card['all']['left_out'].get('refinements') is None
    assert told['episodes'] == oracle[0]['episodes']


@pytest.mark.parametrize(
    ('answer', 'changes', 'words'),
    [
        (
            lambda asked: 'is',
            {},
            ("'refinements': 5", 'lower critique.filter_successes', 'new --workdir'),
        ),
        (
            lambda asked: task.solve(asked.texts['question']),
            {'num_relocated': 0, 'num_inserted': 0},
            ("'repeated': 40", "'share': 20", 'raise critique.num_inserted'),
        ),
        (
            lambda asked: 'is',
            {'annotator': 'model', 'annotator_path': 'somewhere'},
            ("'no_critique'", 'take another critique.annotator'),
        ),
    ],
)
def test_where_nothing_is_left_it_says_why_and_what_helps(
    tmp_path, judging, answer, changes, words
):
    with pytest.raises(ValueError, match='none of .* paths is left') as error:
        run(tmp_path, judging, answer=answer, **changes)
    assert all(word in str(error.value) for word in words), error.value
    assert '\n' not in str(error.value)


def test_requests_of_no_two_parts_share_noise(tmp_path, judging):
    """Within a phase, which has a seed, every request has an id of its own."""
    asked = collections.defaultdict(list)

    class Seeded(fake_engine.AnsweringEngine):
        def generate(self, model, requests, *, method, seed):
            asked[model, seed] += [request.id for request in requests]
            return super().generate(model, requests, method=method, seed=seed)

    class Noted(Played):
        def sampler(self):
            return fake_engine.episodes.Sampler(Seeded(play), CHAT, fake_engine.LIMITS)

    played = Noted(tmp_path, judging, annotator='monte_carlo')
    played.run_stage('critique', critique.critique)
    actors = [ids for (model, _), ids in asked.items() if model == 'actor']
    assert len(actors) == 5
    assert all(len(set(ids)) == len(ids) for ids in actors)


def test_kinds_that_a_judge_cannot_tell_are_unknown():
    turn = records.Turn('attempt', (6,), (1,))
    told = [
        {'construction': 'RG1', 'correct': False, 'mistake': None},
        {'construction': 'RG3', 'correct': False, 'mistake': 'number'},
    ]
    paths = [records.Episode('p', 2, (turn,), outcome) for outcome in told]
    card = critique.data_card(paths, {1: 'refinements'})
    assert list(card['kind']) == ['number', 'unknown']
    assert card['kind']['number']['left_out'] == {'refinements': 1}


def test_a_critique_longer_than_a_critic_may_write_leaves_no_room_for_refinements():
    told = chat.Chat(TOKENIZER).text_turn('critique', '= = =')
    episode = records.Episode('p', 1, (told,), {})
    assert critique.longer_than(4)([episode]) == [None]
    assert critique.longer_than(3)([episode]) == ['too_long']
