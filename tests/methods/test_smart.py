"""SMART: the first strategy that works is trained, with its name."""

import dataclasses

from elenchus.configs.methods import smart
from elenchus.sampling.exploration import explorers, selection
from elenchus.sampling.writing import Notes
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from tests.support import fake_engine
from tests.support.fake_engine import CHAT
from tests.support.rollout_cases import METHOD

PROBLEMS = fake_engine.problems(4)
EXPLORE = build.build(RunSettings, smart.get_config('default')).improve.explore
STRATEGIES = 'def mine(problem, notes):\n    return ["ben ?", "eve ?", "max ?"][notes.number]\n'


def test_each_round_has_another_strategy():
    problem = dataclasses.replace(PROBLEMS[0], source='jsonl')
    names = [smart.strategy(problem, Notes(number)) for number in range(6)]
    assert names == [*smart.STRATEGIES, *smart.STRATEGIES] and len(set(names)) == 3
    assert smart.strategy(PROBLEMS[0], Notes(1)) == ''


def test_the_first_one_that_works_is_trained_and_no_other(tmp_path):
    """Problem i is solved by the attempt (0), or by strategy i - 1."""
    path = tmp_path / 'mine.py'
    path.write_text(STRATEGIES)

    def play(role, request, seed):
        opening = fake_engine.last_text(request, 'attempt')
        used = ['', 'ben', 'eve', 'max'].index(opening.split(' ')[0].strip())
        problem = next(p for p in PROBLEMS if p.question == fake_engine.question_of(request))
        digit = int(problem.answer) + (PROBLEMS.index(problem) > used)
        return fake_engine.ids_of(f'{problem.solution[:-1]}{digit % 10}')

    settings = dataclasses.replace(EXPLORE, opening=f'{path}:mine')
    models = fake_engine.players(fake_engine.RuleEngine(play))
    explored, _ = explorers.explore(
        settings, models, PROBLEMS, explorer='self_guided', method=METHOD, seed=0, first_id=0
    )
    kept = selection.curate(explored, settings, wrong=False, deduplicate=True)
    texts = {e.problem_id: CHAT.text(e.turns[-1]) for e in kept}
    assert len(kept) == len(PROBLEMS)
    for problem, name in zip(PROBLEMS, ['', 'ben ?', 'eve ?', 'max ?'], strict=True):
        assert texts[problem.id].startswith(name)
    tried = [sum(e.problem_id == p.id for e in explored) for p in PROBLEMS]
    assert tried == [1, 2, 3, 4]  # nothing is tried after what works
