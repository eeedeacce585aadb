"""A process of several that steps in turn with the others under a watchdog, as training does.

python -m tests.support.watched_worker FOLDER COORDINATOR NUM_PROCESSES PROCESS_ID SLOW_S

test_silent_hosts.py stops it, or makes the last process slow: after `STEPS_BEFORE` steps it sleeps
SLOW_S seconds within a step, once; 0 never. It ends when FOLDER/end exists.
"""

import pathlib
import sys
import time

import jax

from elenchus.data.files import atomic
from elenchus.train import distributed, output, preemption, watchdog
from elenchus.train.failures import FailuresReachAll
from elenchus.train.metrics.activity import activity

STEPS_BEFORE = 30
STEP_S = 0.1
SETTINGS = watchdog.WatchdogSettings(slow_factor=2.0, timeout_s=0.0, stop_within_s=10.0, alert='')


def main(folder, coordinator, num_processes, process_id, slow_s):
    distributed.initialize(
        coordinator=coordinator,
        num_processes=int(num_processes),
        process_id=int(process_id),
        detect=False,
    )
    is_last = jax.process_index() == jax.process_count() - 1
    with output.kept(), FailuresReachAll(), watchdog.Watchdog(folder, SETTINGS):
        activity.start_stage('actor')
        step, is_over, end = 0, False, pathlib.Path(folder, 'end')
        while not is_over:
            step += 1
            time.sleep(float(slow_s or 0) if is_last and step == STEPS_BEFORE else STEP_S)
            preemption.requests.is_requested()
            is_over = distributed.run_on_first(end.exists)
            activity.mark('steps')
            if step == STEPS_BEFORE // 2:
                print('ready', file=sys.stderr, flush=True)
            atomic.check_exists(folder)


if __name__ == '__main__':
    main(*sys.argv[1:])
