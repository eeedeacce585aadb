"""Four Habits: counts on texts written by hand."""

from elenchus.configs.evaluations import four_habits
from tests.support import method_cases

TEXTS = [
    'First we add 3 and 4. Then we double it.',
    "It is 7. Wait, that's not right: it is 8. Let me check: 8 - 4 = 4.",
    'Working backwards from 24, the last factor must be 4.',
    'It is 12.',
]


def test_each_behaviour_is_counted_once_an_attempt():
    figures = four_habits.habits(
        method_cases.groups([{} for _ in TEXTS]), method_cases.reader(TEXTS)
    )
    assert figures == {
        'verifies': 0.25, 'backtracks': 0.25, 'sets subgoals': 0.25, 'reasons backwards': 0.25,
    }  # fmt: skip
