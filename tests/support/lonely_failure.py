"""One of two processes: one of them fails while the other waits in a collective."""

import sys

from jax.experimental import multihost_utils

from elenchus.train import distributed, failures


def main(coordinator, process_id, failing):
    distributed.initialize(
        coordinator=coordinator, num_processes=2, process_id=int(process_id), detect=False
    )
    distributed.barrier()
    with failures.FailuresReachAll():
        if process_id == failing:
            raise ZeroDivisionError('a worker\ndivided by zero')
        multihost_utils.sync_global_devices('the other process never arrives here')


if __name__ == '__main__':
    main(*sys.argv[1:])
