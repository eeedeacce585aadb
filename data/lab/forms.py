"""Forms of the lab: which questions are generated."""

import dataclasses
import itertools
import random
from typing import Literal

from elenchus.data.lab import task
from elenchus.data.lab.task import CONSTANTS, NAMES, SPLITS, Statement, split_of
from elenchus.data.records import Problem

NUM_DISTRACTORS = (1, 2)  # least and most quantities outside the chain of the answer
FormName = Literal['digits', 'tail']


@dataclasses.dataclass(frozen=True)
class Form:
    """Sizes and shares of generated questions; the level is the number of steps."""

    modulus: int
    levels: int  # 1 to `levels` in turn
    ood_steps: tuple[int, int]  # levels of the 'ood' split: longer chains than any in training
    last_units: tuple[int, int] = (9, 9)  # greatest unit of a second number, lowest to top level
    product_share: float = 0.0  # of steps that multiply, at the highest level; 0 at level 1
    constant_share: float = 0.0  # of questions that start at a constant; likewise
    state_constants: bool = False  # the question states the constant, with a random value

    def draw(self, rng: random.Random, level: int) -> tuple[list[Statement], str]:
        """Draws two chains of random statements, interleaved; returns them and the target's name.

        The target is the end of the first chain; the second chain consists of distractors. The
        numbers come first and no quantity is the base of two others, so that a small model learns
        to follow the statements in minutes; the remaining difficulty is look-up and arithmetic.
        """
        num_distractors = rng.randint(*NUM_DISTRACTORS)
        names = rng.sample(NAMES, level + 1 + num_distractors)
        chain, distractors = names[: level + 1], names[level + 1 :]
        stated = [chain[0], distractors[0]]
        if self.constant_share and rng.random() < self._share(self.constant_share, level):
            chain[0] = rng.choice(tuple(CONSTANTS))
            stated[0] = chain[0]
            if not self.state_constants:
                del stated[0]
        numbers = [
            Statement(name, None, '+', rng.randrange(self.modulus), self.modulus) for name in stated
        ]
        rng.shuffle(numbers)
        links = {True: itertools.pairwise(chain), False: itertools.pairwise(distractors)}
        in_chain = [True] * level + [False] * (num_distractors - 1)
        rng.shuffle(in_chain)
        steps = []
        for which in in_chain:
            base, name = next(links[which])
            steps.append(Statement(name, base, *self._draw_operation(rng, level), self.modulus))
        return [*numbers, *steps], chain[-1]

    def _draw_operation(self, rng: random.Random, level: int) -> tuple[str, int]:
        if self.product_share and rng.random() < self._share(self.product_share, level):
            return '*', rng.randrange(2, 10)
        if self.modulus == 10:
            return rng.choice('+-'), rng.randrange(1, 10)
        # A carry is what a sum in the head gets wrong: it becomes more frequent with the level.
        least, most = self.last_units
        units = rng.randint(0, round(least + self._share(most - least, level)))
        return rng.choice('+-'), 10 * rng.randrange(10) + units

    def _share(self, share: float, level: int) -> float:
        """Returns the share at a level: it grows evenly from 0 at level 1."""
        return share * (level - 1) / (self.levels - 1)


FORMS: dict[FormName, Form] = {
    'digits': Form(modulus=10, levels=5, ood_steps=(6, 7)),
    'tail': Form(
        modulus=100,
        levels=8,
        ood_steps=(9, 10),
        last_units=(2, 5),
        product_share=0.1,
        constant_share=0.5,
    ),
}
"""Forms by the value of `data.form`."""


def generate_problem(*, seed: int, split: str, index: int, form: Form = FORMS['digits']) -> Problem:
    """Generates problem `index` of a split.

    Levels are 1 to `form.levels` in turn, and higher in the 'ood' split. A problem is a function of
    the arguments. Splits are disjoint because the hash of a question decides its split.
    """
    if split not in SPLITS:
        raise ValueError(f'unknown split={split!r}; valid: {SPLITS}')
    level = form.ood_steps[index % 2] if split == 'ood' else 1 + index % form.levels
    rng = random.Random(f'{seed}/{split}/{index}')
    while True:  # rejection sampling: the hash of the question must select this split
        statements, target = form.draw(rng, level)
        question = ' ; '.join([*(s.text() for s in statements), f'{target} ?'])
        if split == 'ood' or split_of(question) == split:
            break
    solution = task.solve(question)
    return Problem(
        id=f'lab/{seed}/{split}/{index}',
        question=question,
        solution=solution,
        answer=solution.rsplit(' ', 1)[1],
        level=level,
        source='lab',
    )
