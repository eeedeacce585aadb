"""The stage `self_talk` with scripted players: what it is trained on, and how it is compared."""

import dataclasses
import random

import pytest

from elenchus.configs import lab as lab_config
from elenchus.data import records
from elenchus.data.critiques import mistakes, oracle
from elenchus.data.critiques import self_talk as talk_lib
from elenchus.data.critiques.grammars import LAB
from elenchus.data.files import episode_files
from elenchus.data.lab import task
from elenchus.sampling import episodes
from elenchus.train.run import workspace
from elenchus.train.stages import self_talk, self_talk_data
from elenchus.train.stages import supervised as train_stages
from tests.support import fake_engine, fake_workspace
from tests.support.fake_engine import CHAT

STAGES = ('base', 'actor', 'critique', 'critic', 'evaluate', 'self_talk')
PROBLEMS = fake_engine.problems(20)


def write(role, request, seed):
    """Refinements of which one in three slips at once; talks of which every other is right."""
    if role == 'refinement':
        lines = fake_engine.lines_of(task.solve(fake_engine.question_of(request)))
        lines = lines[fake_engine.last_text(request, role).count('\n') :]
        slips = random.Random(repr((request.id, seed))).random() < 0.3
        return (
            *(fake_engine.change_last_digit(lines[0]) if slips else lines[0]),
            *sum(lines[1:], ()),
        )
    question = fake_engine.question_of(request)
    solution = task.solve(question)
    parts = talk_lib.lines_with_remarks(
        solution, LAB.parse(task.judge(question, solution).critique), LAB
    )
    if request.id % 2:
        parts = [
            *parts[:-1],
            parts[-1]._replace(line='#### 9' if solution[-1] != '9' else '#### 8'),
        ]
    return fake_engine.ids_of(talk_lib.join(parts, LAB))


@pytest.fixture
def made(tmp_path, monkeypatch):
    """(workspace, examples that were trained on) with critique data and a told evaluation."""
    stand, seen = object.__new__(workspace.Workspace), []
    config = lab_config.get_config('smoke')
    config.stages, config.self_talk.num_examples = STAGES, 40
    config.sampling.engine.prompt_buckets = (352,)
    fake_workspace.furnish(stand, config, tmp_path)
    stand.tokenizer, stand.chat = fake_engine.TOKENIZER, CHAT
    stand.grammar, stand.judge, stand.train_problems = LAB, fake_engine.judge, PROBLEMS
    stand.test_problems = [task.generate_problem(seed=0, split='test', index=i) for i in range(10)]

    def fit(_, folder, model, examples, *, settings, name):
        assert (model, name) == ('base', 'self_talk')
        seen.extend(examples)
        return {'examples': len(examples)}

    sampler = episodes.Sampler(fake_engine.RuleEngine(write), CHAT, fake_engine.LIMITS)
    monkeypatch.setattr(workspace.Workspace, 'sampler', lambda self: sampler)
    monkeypatch.setattr(workspace.Workspace, 'load_model', lambda self, stage: stage)
    monkeypatch.setattr(train_stages, 'base_to_train', lambda *_, stage: 'base')
    monkeypatch.setattr(workspace.Workspace, 'load_checkpoint', lambda self, path: None)
    monkeypatch.setattr(train_stages, 'fit', fit)
    data = stand.stage_folder('critique') / 'episodes' / 'part-00000.array_record'
    episode_files.write_episodes(data, [criticised(p, i % 4) for i, p in enumerate(PROBLEMS)])
    return stand, seen


def criticised(problem, right):
    text = problem.solution if not right else mistakes.corrupt(problem, rng=random.Random(right))
    (facts,) = fake_engine.judge([(problem, text)])
    told = (
        CHAT.text_turn('attempt', text),
        CHAT.text_turn('critique', oracle.annotate(problem, text)),
    )
    return records.Episode(
        problem.id, problem.level, (*CHAT.question_turns(problem.question), *told), facts
    )


def point(size, right, tokens):
    levels = ('all', '1', '2', '3', '4', '5')
    return {
        'size': size,
        'questions': 10,
        'accuracy': {level: [right, right, right] for level in levels},
        'tokens': dict.fromkeys(levels, tokens),
    }


def test_it_is_trained_on_talks_that_come_to_a_right_answer(made):
    stand, examples = made
    told = stand.run_stage('self_talk', self_talk.STAGES['self_talk'])
    talks = list(
        episode_files.read_episodes(stand.stage_folder('self_talk') / 'talks' / 'episodes')
    )
    by_id = {problem.id: problem for problem in PROBLEMS}
    kept = [talk for talk in talks if talk.outcome['left_out'] is None]
    assert len(talks) == told['talks'] == 20 and len(kept) == len(examples) == told['examples']
    assert set(told['left_out']) <= {'never_right', 'too_long'}
    assert sum(told['left_out'].values()) == len(talks) - len(kept)
    for talk in kept:
        text = CHAT.text(talk.turns[-1])
        problem = by_id[talk.problem_id]
        assert talk_lib.corrected_attempt(text, LAB) == problem.solution
        assert talk_lib.count_corrections(text, LAB) == talk.outcome['corrections']
    counts = [talk.outcome['corrections'] for talk in kept]
    assert counts.count(0) == 5 and max(counts) == 2
    assert told['corrected_talks'] == len(kept) - 5
    assert told['tokens_sampled'] > 0


@pytest.mark.parametrize('learn', [True, False])
def test_lines_called_wrong_are_learnt_only_where_asked(made, learn):
    stand, _ = made
    changed = dataclasses.replace(stand.settings.self_talk, learn_mistakes=learn)
    stand.settings = dataclasses.replace(stand.settings, self_talk=changed)
    flawed = mistakes.corrupt(PROBLEMS[3], rng=random.Random(0))
    critique = task.judge(PROBLEMS[3].question, flawed).critique
    *right, wrong = talk_lib.lines_with_remarks(flawed, LAB.parse(critique), LAB)
    turn = CHAT.text_turn('attempt', talk_lib.join([*right, wrong], LAB))
    turns = (*CHAT.question_turns(PROBLEMS[3].question), turn)
    made_of = self_talk_data.example(stand, records.Episode('p', 1, turns, {}))
    unlearnt = made_of.tokens[(made_of.loss_mask > 0) & (made_of.weights == 0)]
    assert fake_engine.TOKENIZER.decode(unlearnt.tolist()).strip() == ('' if learn else wrong.line)


def test_a_talk_is_left_out_where_no_round_puts_it_right(made, monkeypatch):
    stand, examples = made
    monkeypatch.setattr(random, 'Random', lambda seed: type('', (), {'random': lambda _: 0.0})())
    told = stand.run_stage('self_talk', self_talk.STAGES['self_talk'])
    assert told['left_out'] == {'never_right': 15} and len(examples) == 5


def test_it_is_compared_with_what_evaluate_told_at_the_nearest_cost(made):
    stand, _ = made
    arms = {
        'majority': [point(1, 0.4, 30.0), point(2, 0.45, 60.0), point(8, 0.3, 1000.0)],
        'refined majority': [point(1, 0.6, 100.0)],
        'another': [],
    }
    evaluated = stand.stage_folder('evaluate')
    evaluated.mkdir(parents=True)
    workspace.write_json(evaluated / 'summary.json', {'curves': arms})
    told = stand.run_stage('self_talk', self_talk.STAGES['self_talk'])
    assert told['accuracy']['self-talk']['all'][0] == pytest.approx(0.5)
    assert told['finished'] == 1.0 and told['corrections'] == 0.0 and told['spurious'] == 0.0
    assert set(told['curves']) == {'self-talk majority', 'majority', 'refined majority'}
    one = told['equal_tokens']['self-talk majority@1, majority']
    assert one['against'] == 'majority@2' and one['questions'] == 10
    assert one['tokens'] == [told['tokens_per_answer']['self-talk'], 60.0]
    assert one['difference']['all'] == pytest.approx(0.05)


def test_without_an_evaluation_it_is_told_alone(made):
    told = made[0].run_stage('self_talk', self_talk.STAGES['self_talk'])
    assert list(told['curves']) == ['self-talk majority'] and told['equal_tokens'] == {}


def test_a_text_that_is_cut_off_has_no_answer(made, monkeypatch):
    stand, _ = made
    inner = fake_engine.RuleEngine(lambda *given: write(*given)[:-1])
    sampler = episodes.Sampler(inner, CHAT, fake_engine.LIMITS)
    monkeypatch.setattr(workspace.Workspace, 'sampler', lambda self: sampler)
    (answer, *_) = self_talk.answers(stand, None, stand.test_problems[:1], 0)
    assert not answer.outcome['correct'] and not answer.outcome['finished']
    assert answer.outcome['tokens'] == {'attempt': len(answer.turns[-1].tokens)}
