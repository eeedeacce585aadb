"""Med-REFL: reflections on one path, a successful and a failed one."""

from elenchus.configs.methods import med_refl
from tests.support.method_cases import group, last_tokens, talk, written


def test_only_refinements_of_one_attempt_are_compared():
    first, second = (written('attempt', (n,), correct=False) for n in (10, 11))
    critique = written('critique', (2,))
    after = lambda attempt, n, ok: talk(  # noqa: E731
        attempt, critique, written('refinement', (n,), correct=ok)
    )
    rows = [talk(first), talk(second), after(first, 20, True), after(second, 21, False)]
    assert not med_refl.reflections([group(*rows)])
    rows += [after(first, 22, False), after(first, 23, False), after(second, 24, True)]
    pairs = med_refl.reflections([group(*rows)])
    assert last_tokens(pairs) == [((20,), (22,)), ((24,), (21,))]
    assert all(a.turns[:-1] == b.turns[:-1] for a, b, _ in pairs)
