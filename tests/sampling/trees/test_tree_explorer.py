"""The explorer `tree_search`: its responses are what the trees came to."""

from tests.sampling.exploration.test_explorers import PROBLEMS, TREE, explore_ruled, hopeless
from tests.support import fake_engine


def test_the_responses_of_a_tree_come_first_and_have_the_values_of_its_nodes():
    def by_lines(role, request, seed):
        is_line = request.opening or request.id >= TREE.num_nodes * 100
        return fake_engine.next_line(request) if is_line else hopeless(role, request, seed)

    _, results = explore_ruled('tree_search', by_lines)
    origins = [e.response.facts.origin for e in results]
    found = results[: origins.index('attempt')]
    assert set(origins[: len(found)]) == {'tree_search'}
    assert {e.problem_id for e in found} == {problem.id for problem in PROBLEMS}
    ended = [e for e in found if e.attempt.facts.correct]
    assert ended and all(e.attempt.step_scores[-1] == 1.0 for e in ended)
