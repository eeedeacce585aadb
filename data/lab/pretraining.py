"""Training documents of the lab's base model: worked solutions and drills of single skills."""

import random

from elenchus.data.lab import task

NUM_DRILLED = (2, 10)  # least and most quantities of a drill


def worked_solution(question: str) -> str:
    """Returns every quantity worked out in small steps: look-up, then arithmetic.

    For `eve 7 ; ben : eve - 4 ; ben ?`:

        ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 3
         answer : ben 3
    """
    statements, target = task.parse_question(question)
    values = task.known_values(question)
    lines = [
        f'{s.text()} ; {task.derivation(s, values[s.base])} ; {s.name} {values[s.name]}'
        for s in statements.values()
        if s.base is not None
    ]
    return '\n '.join([*lines, f'answer : {target} {values[target]}'])


def drill(index: int) -> tuple[str, str]:
    """Returns (question, text) of drill `index`: look-up and arithmetic without long chains.

    The question states digits by name. The text looks each of them up, in another order, and adds
    or subtracts a digit: `drill(0)` is `oda 1 ; ned 3 ; hal 7 ; oda ?` and

        ned 3 ; 3 + 2 = 5
         oda 1 ; 1 - 4 = 7
         hal 7 ; 7 + 6 = 3

    Only the digit after a name and the digit after '=' can be predicted. A model that is trained
    only on solutions learns these two skills late: most words of a solution are copies, and the
    value computed last is a good guess for the next one.
    """
    rng = random.Random(f'drill/{index}')
    names = rng.sample(task.NAMES, rng.randint(*NUM_DRILLED))
    values = {name: rng.randrange(10) for name in names}
    question = ' ; '.join([*(f'{name} {value}' for name, value in values.items()), f'{names[0]} ?'])
    lines = [
        task.derivation(
            task.Statement('', name, rng.choice('+-'), rng.randrange(1, 10)), values[name]
        )
        for name in rng.sample(names, len(names))
    ]
    return question, '\n '.join(lines)
