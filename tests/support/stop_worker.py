"""A process that works until it is asked to stop; test_preemption.py sends it signals.

python -m tests.support.stop_worker COORDINATOR NUM_PROCESSES PROCESS_ID WORK

WORK is 'calls' (short steps) or 'stuck' (one long call of C, as XLA's compilation is, which defers
Python's handlers). COORDINATOR '' is a process alone, without jax.distributed.
"""

import hashlib
import sys
import time

from elenchus.train import distributed


def main(coordinator, num_processes, process_id, work):
    distributed.initialize(
        coordinator=coordinator,
        num_processes=int(num_processes),
        process_id=int(process_id),
        detect=False,
    )
    distributed.barrier()
    print('ready', file=sys.stderr, flush=True)
    if work == 'stuck':
        hashlib.pbkdf2_hmac('sha256', b'a', b'b', 2**31 - 1)
    for step in range(10_000):
        if distributed.is_preempted():
            raise distributed.Preempted(f'saved at step {step}')
        time.sleep(0.01 * (1 + int(process_id)))  # processes may be at different steps


if __name__ == '__main__':
    main(*sys.argv[1:])
