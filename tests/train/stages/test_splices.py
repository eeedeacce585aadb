"""The slot `self_talk.splice`: which text is made of wrong lines, remarks and right lines."""

import dataclasses
import functools

import pytest

from elenchus.data.critiques.grammars import LAB
from elenchus.data.files import episode_files
from elenchus.sampling import slots
from elenchus.sampling.critique_data import splices
from elenchus.train.run import runner
from tests.support.fake_engine import CHAT
from tests.train.stages.test_self_talk import (  # noqa: F401
    PROBLEMS,
    corrections_of,
    make_run,
    rejection_of,
    trained_on,
)

FIRST_ERROR = '''
"""Agent-R's form: up to the first error and a thought on it, then the right lines alone."""


def mine(lines, problem):
    first = next((i for i, part in enumerate(lines) if part.right is False), None)
    wrong = [] if first is None else [lines[first].line, lines[first].remark]
    before = [part.line for part in lines[:first] if part.right]
    after = [] if first is None else [p.line for p in lines[first + 1 :] if p.right]
    return '\\n'.join([*before, *wrong, *after])
'''


def talks_of(tmp_path, source=None):
    run = make_run(tmp_path / 'work')
    if source:
        path = tmp_path / 'mine.py'
        path.write_text(source)
        talk = dataclasses.replace(run.settings.self_talk, splice=f'{path}:mine')
        run = dataclasses.replace(run, settings=dataclasses.replace(run.settings, self_talk=talk))
    runner.run_stage(run, 'self_talk')
    folder = run.directory.stage('self_talk').path
    return list(episode_files.read_episodes(folder / 'talks' / 'episodes'))


def test_a_function_of_ones_own_makes_the_texts(tmp_path, trained_on):  # noqa: F811
    by_id = {problem.id: problem for problem in PROBLEMS}
    talks = [t for t in talks_of(tmp_path, FIRST_ERROR) if rejection_of(t) is None]
    slots.load.cache_clear()
    assert talks and max(map(corrections_of, talks)) == 2
    for talk in talks:
        lines = [line.strip() for line in CHAT.text(talk.turns[-1]).split('\n')]
        solution = [s.strip() for s in by_id[talk.problem_id].solution.split('\n')]
        remarks = [i for i, line in enumerate(lines) if line.endswith(' wrong')]
        if not corrections_of(talk):
            assert lines == solution
            continue
        # Right lines, the first wrong one, its remark, and the rest of the solution.
        assert len(remarks) == 1
        at = remarks[0]
        assert [*lines[: at - 1], *lines[at + 1 :]] == solution
        assert lines[at - 1] not in solution


def test_the_built_in_splice_is_each_line_with_its_remark():
    parts = [splices.RemarkedLine('ben : 3 ; ben 3', 'ben : 3 - 3 = 0 ; correct')]
    make = functools.partial(splices.splice, 'talk', problem=PROBLEMS[0], grammar=LAB)
    assert make(parts) == 'ben : 3 ; ben 3\n ben : 3 - 3 = 0 ; correct'
    assert make([splices.RemarkedLine('', 'ben : 3 - 3 = 0 ; correct')]).startswith('ben : 3 -')


@pytest.mark.parametrize('reply', ['None', '7', '" \\n "'])
def test_a_splice_that_is_no_text_is_named(tmp_path, reply):
    (tmp_path / 'mine.py').write_text(f'def mine(lines, problem):\n    return {reply}\n')
    with pytest.raises(ValueError, match=r'self_talk\.splice: mine .*mine\.py:1\) returned'):
        splices.splice(f'{tmp_path}/mine.py:mine', [], PROBLEMS[0], grammar=LAB)
    slots.load.cache_clear()
