"""One of two processes, of which the first fails in every way that an exception allows.

Prints a JSON object: way of failing -> [type and message of the exception, seconds].
"""

import json
import sys
import time

from elenchus.train import distributed

ERRORS = {
    'value': ValueError('bad field'),
    'file': FileNotFoundError(2, 'no such file', 'x.json'),
    'runtime': RuntimeError('a worker of the verifier died'),
    'zero': ZeroDivisionError('division by zero'),
    'key': KeyError('answer'),
    'assertion': AssertionError('three lines\nof text\nhere'),
    'floating': FloatingPointError('step 3: loss nan'),
    'memory': MemoryError(),
    'stop': StopIteration(),
    'interrupt': KeyboardInterrupt(),
    'exit': SystemExit(3),
    'long': RuntimeError('x' * 5000),
    'surrogate': RuntimeError('half \ud800 a pair'),
}


class Outcome:
    """Context manager that keeps the exception of its body."""

    def __enter__(self):
        self.start, self.text = time.perf_counter(), None
        return self

    def __exit__(self, kind, error, trace):
        self.seconds = time.perf_counter() - self.start
        self.text = error and f'{kind.__name__}: {error}'
        return True


def outcome_of(make):
    """Returns [exception, seconds] of a call on the first process."""
    with Outcome() as outcome:
        distributed.run_on_first(make)
    return [outcome.text, outcome.seconds]


def failing(error):
    """Returns a function that raises the error."""

    def make():
        raise error

    return make


def main(coordinator, process_id):
    distributed.initialize(
        coordinator=coordinator, num_processes=2, process_id=int(process_id), detect=False
    )
    distributed.barrier()
    results = {name: outcome_of(failing(error)) for name, error in ERRORS.items()}
    results['no JSON'] = outcome_of(lambda: {1, 2})
    results['after all'] = outcome_of(lambda: 'a value')
    print(json.dumps(results), file=sys.stderr)


if __name__ == '__main__':
    main(*sys.argv[1:])
