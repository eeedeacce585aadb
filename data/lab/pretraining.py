"""Training documents of the lab's base model: worked solutions and drills of single skills."""

import random

from elenchus.data.lab import arithmetic, task

NUM_DRILLED = (2, 10)  # least and most quantities of a drill


def worked_solution(question: str) -> str:
    """Returns every quantity worked out in small steps: look-up, then arithmetic.

    For `eve 7 ; ben : eve - 4 ; ben ?`:

        ben : eve - 4 ; eve 7 ; 7 - 4 = 3 ; ben 3
         answer : ben 3
    """
    statements, target = task.parse_question(question)
    values = {
        name: arithmetic.write(value, statements[name].modulus if name in statements else 100)
        for name, value in task.known_values(question).items()
    }
    lines = []
    for s in statements.values():
        if s.base is not None:
            derivation = task.derivation(s, arithmetic.read(values[s.base]))
            lines.append(f'{s.text()} ; {derivation} ; {s.name} {values[s.name]}')
    return '\n '.join([*lines, f'answer : {target} {values[target]}'])


def drill(index: int) -> tuple[str, str]:
    """Returns (question, text) of drill `index`: look-up and arithmetic without long chains.

    The question states digits by name. The text looks each of them up, in another order, and adds
    or subtracts a digit: `drill(0)` is `oda 1 ; ned 3 ; hal 7 ; oda ?` and

        ned 3 ; 3 + 2 = 5
         oda 1 ; 1 - 4 = 7
         hal 7 ; 7 + 6 = 3

    Only the digit behind a name and the digit behind '=' can be predicted. A model that is
    trained only on solutions learns these two skills late: most words of a solution are copies, and
    the value computed last is a good guess for the next one.
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


def tail_drill(index: int) -> tuple[str, str]:
    """Returns (question, text) of a drill in numbers of two digits, with products.

    A line first states what it will work out, so that all that follows can be predicted. Some
    lines work it out in digits, `ned + 83 ; ned 43 ; 4 + 8 = 21 ; 3 + 3 = 60 ; 6 + 1 = 70`, and
    some in the head, `ned + 83 ; ned 43 + 83 = 27`.
    """
    rng = random.Random(f'tail/{index}')
    names = rng.sample((*task.NAMES, *task.CONSTANTS), rng.randint(*NUM_DRILLED))
    values = {name: rng.randrange(100) for name in names}
    stated = [f'{name} {arithmetic.write(value, 100)}' for name, value in values.items()]
    lines = []
    for name in rng.sample(names, len(names)):
        sign = rng.choice('++--*')
        number = rng.randrange(2, 10) if sign == '*' else 10 * rng.randrange(10) + rng.randint(0, 3)
        statement = task.Statement('', name, sign, number, 100)
        words = task.derivation(statement, values[name])
        if rng.random() < 0.6:
            words = statement.step(values[name]).text().split(' : ')[1].split(' ; ')[0]
        lines.append(f'{name} {sign} {arithmetic.write(number, 100)} ; {words}')
    return ' ; '.join([*stated, f'{names[0]} ?']), '\n '.join(lines)
