"""Forms of the lab: which questions are generated."""

import dataclasses
import itertools
import random
from typing import Literal

from elenchus.data.lab import task
from elenchus.data.lab.task import NAMES, SPLITS, THINGS, Statement, split_of
from elenchus.data.records import Problem

NUM_DISTRACTORS = (1, 2)  # least and most quantities outside the chain of the answer
FormName = Literal['digits', 'tail']


@dataclasses.dataclass(frozen=True)
class Form:
    """Sizes and shares of generated questions; the level is the number of steps.

    Constants are ranked: THINGS[0] is the most frequent. A question takes them from the first ones,
    of which there are `first_ranks` at level 1, evenly more up to `last_ranks` at the highest
    level, so that hard questions need rare facts. With a `rank_ratio` a question takes any, each
    less frequent than the one before it by this ratio.
    """

    levels: int  # 1 to `levels` in turn
    ood_steps: tuple[int, int]  # levels of the 'ood' split: longer chains than any in training
    constant_share: float = 0.0  # of steps, whose last number is a constant
    first_ranks: int = 0  # constants of level 1
    last_ranks: int = 0  # constants of the highest level
    rank_ratio: float = 0.0  # 0: evenly among the ranks of the level

    def draw(self, rng: random.Random, level: int) -> tuple[list[Statement], str]:
        """Draws two chains of random statements, interleaved; returns them and the target's name.

        The target is the end of the first chain; the second chain consists of distractors. The
        digits come first and no quantity is the base of two others, so that a small model learns to
        follow the statements in minutes; the remaining difficulty is look-up and arithmetic.
        """
        num_distractors = rng.randint(*NUM_DISTRACTORS)
        names = rng.sample(NAMES, level + 1 + num_distractors)
        chain, distractors = names[: level + 1], names[level + 1 :]
        digits = [
            Statement(name, None, '+', rng.randrange(10)) for name in (chain[0], distractors[0])
        ]
        rng.shuffle(digits)
        links = {True: itertools.pairwise(chain), False: itertools.pairwise(distractors)}
        in_chain = [True] * level + [False] * (num_distractors - 1)
        rng.shuffle(in_chain)
        steps = []
        for which in in_chain:
            base, name = next(links[which])
            step = Statement(name, base, rng.choice('+-'), rng.randrange(1, 10))
            if self.constant_share and rng.random() < self.constant_share:
                thing = THINGS[self._draw_rank(rng, level)]
                step = dataclasses.replace(step, digit=task.CONSTANTS[thing], constant=thing)
            steps.append(step)
        return [*digits, *steps], chain[-1]

    def _draw_rank(self, rng: random.Random, level: int) -> int:
        if self.rank_ratio:
            weights = [self.rank_ratio**rank for rank in range(len(THINGS))]
            return rng.choices(range(len(THINGS)), weights)[0]
        share = (level - 1) / (self.levels - 1)
        ranks = round(self.first_ranks + share * (self.last_ranks - self.first_ranks))
        return rng.randrange(min(ranks, len(THINGS)))


FORMS: dict[FormName, Form] = {
    'digits': Form(levels=5, ood_steps=(6, 7)),
    'tail': Form(levels=8, ood_steps=(9, 10), constant_share=0.5, first_ranks=16, last_ranks=40),
}
"""Forms by the value of `data.form`."""
PRETRAINING_RATIO = 0.75  # rank_ratio of the texts from which the base model learns facts
PRETRAINING_RANKS = 28  # first_ranks of its refinements, in which facts have no fixed value


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
