"""A process that works until it is asked to stop; test_preemption.py sends it signals.

python -m tests.support.stop_worker COORDINATOR NUM_PROCESSES PROCESS_ID WORK

WORK is 'calls' (short steps) or 'stuck' (one long call of C, as XLA's compilation is, which defers
Python's handlers), in a library; or in a run, which may end early: 'run' (stuck with nothing to
save), 'run-steps' (stuck with steps to save), 'run-first' (as that in process 0, which the others
wait for in a collective), 'run-joins' (says so before it joins the others). COORDINATOR '' is a
process alone, without jax.distributed.
"""

import hashlib
import sys
import time

import jax

from elenchus.train import distributed, preemption
from elenchus.train.early_end import early_end
from elenchus.train.failures import FailuresReachAll

WITHIN_S = 1.0


def main(coordinator, num_processes, process_id, work):
    early_end.is_allowed = work.startswith('run')
    if work == 'run-joins':
        print('joins', file=sys.stderr, flush=True)
    distributed.initialize(
        coordinator=coordinator,
        num_processes=int(num_processes),
        process_id=int(process_id),
        detect=False,
    )
    distributed.barrier()
    with FailuresReachAll():
        do(work, process_id)


def do(work, process_id):
    if work.startswith('run'):
        preemption.requests.within_s = WITHIN_S
        early_end.has_steps = work != 'run'
    print('ready', file=sys.stderr, flush=True)
    if work == 'run-first' and jax.process_index():
        distributed.barrier()
    if work != 'calls':
        hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)
    for step in range(10_000):
        if preemption.requests.is_requested():
            raise preemption.Preempted(f'saved at step {step}')
        time.sleep(0.01 * (1 + int(process_id)))  # processes may be at different steps


if __name__ == '__main__':
    main(*sys.argv[1:])
