"""Faults of a launch on Cloud TPU before the run is on the machines."""

from tests.support import fake_gcloud as fake
from tests.support import gcloud_errors as errors
from tests.support.fake_gcloud import FakeGcloud
from tests.support.launch_fault import (
    HOUR,
    TO_THE_END,
    Fault,
    always,
    at,
    first,
    interrupt,
    late,
)

# gcloud makes 255 of what scp says on several hosts (SDK 528, tpu_vm/ssh.py).
DISK = fake.Result(255, '', 'scp: write remote "elenchus.tar.gz": No space left on device')
UNPACKED = fake.Result(
    1,
    '',
    'tar: configs: Cannot write: No space left on device\n'
    '##### Command execution on worker 2 failed with exit status 1. Continuing.\n',
)
NO_PYTHON = fake.Result(1, '', '[setup] error: no Python 3.11 or newer')
FAULTS = (
    Fault(
        'absent',
        'gcloud is not installed',
        2,
        'not installed',
        0.0,
        0,
        0,
        always('describe', errors.NOT_INSTALLED),
    ),
    Fault(
        'absent', 'not logged in', 2, 'active account', 0.0, 0, 0, always('describe', errors.LOGIN)
    ),
    Fault(
        'absent',
        'the login has expired',
        2,
        'gcloud auth login',
        0.0,
        0,
        0,
        always('describe', errors.TOKEN),
    ),
    Fault(
        'absent',
        'the login wants a password again',
        2,
        'gcloud auth login',
        0.0,
        0,
        0,
        always('describe', errors.REAUTHENTICATION),
    ),
    Fault(
        'absent',
        'no such zone (403)',
        2,
        'us-west9-z',
        0.0,
        0,
        0,
        always('describe', errors.ZONE_DENIED),
    ),
    Fault(
        'absent', 'no such zone (404)', 2, 'us-west9-z', 0.0, 0, 0, always('describe', errors.ZONE)
    ),
    Fault(
        'absent', 'no billing account', 2, 'billing', 0.0, 0, 0, always('describe', errors.BILLING)
    ),
    Fault(
        'absent',
        'never any network',
        1,
        'auth tokens',
        0.0,
        0,
        0,
        always('describe', errors.NETWORK),
    ),
    Fault(
        'absent',
        'another run is on a slice of that name, and there is no budget',
        2,
        'another run is on it',
        0.0,
        0,
        0,
        begin=FakeGcloud.start_elsewhere,
        stays=1,
        flags={'max_hours': 0.0},
    ),
    Fault(
        'absent',
        'no network for a while',
        0,
        TO_THE_END,
        1.09,
        cloud=first('describe', 3, errors.NETWORK),
    ),
    Fault(
        'absent',
        'another run is on a slice of that name',
        2,
        'another run is on it',
        0.0,
        0,
        0,
        begin=FakeGcloud.start_elsewhere,
        stays=1,
    ),
    Fault(
        'absent',
        'too many requests a minute in the project',
        0,
        TO_THE_END,
        1.09,
        3,
        cloud=first('create', 2, errors.RATE),
    ),
    Fault(
        'absent',
        'the zone has no more capacity for a while',
        0,
        TO_THE_END,
        1.09,
        3,
        cloud=first('create', 2, errors.CAPACITY),
    ),
    Fault(
        'waiting',
        'the laptop dies for good, and the slice comes up',
        None,
        'WAITING_FOR_RESOURCES',
        1.0,
        1,
        0,
        cloud=late('describe', 3, 1, fake.die),
    ),
    Fault(
        'ready',
        'the SSH agent has no key',
        2,
        'ssh-add',
        0.03,
        1,
        0,
        always('status', errors.AGENT),
    ),
    Fault('absent', 'quota refuses', 2, 'Quota', 0.0, 1, 0, always('create', errors.QUOTA)),
    Fault(
        'absent',
        'no permission',
        2,
        'PERMISSION_DENIED',
        0.0,
        1,
        0,
        always('create', errors.PERMISSION),
    ),
    Fault(
        'absent',
        'server errors for a while',
        0,
        TO_THE_END,
        1.09,
        4,
        cloud=first('create', 3, errors.SERVER),
    ),
    Fault(
        'absent',
        'the answer to the request is lost',
        0,
        TO_THE_END,
        1.09,
        1,
        cloud=first('create', 1, fake.lose_answer('create')),
    ),
    Fault(
        'requested', 'not listed yet', 0, TO_THE_END, 1.09, begin=lambda c: setattr(c, 'hidden', 3)
    ),
    Fault(
        'waiting',
        'one look fails',
        0,
        TO_THE_END,
        1.09,
        cloud=late('describe', 3, 1, errors.NETWORK),
    ),
    Fault(
        'waiting',
        'the token expires for a time',
        0,
        TO_THE_END,
        1.20,
        cloud=late('describe', 3, 4, errors.TOKEN),
    ),
    Fault(
        'waiting', 'a look hangs', 0, TO_THE_END, 1.09, cloud=late('describe', 3, 1, errors.HANGS)
    ),
    Fault(
        'waiting',
        'the laptop sleeps 8 hours, and the slice comes up meanwhile',
        0,
        TO_THE_END,
        2.10,
        2,
        cloud=late('describe', 3, 1, fake.sleep_for(8 * HOUR)) | {'runs': [(HOUR, 0)]},
    ),
    Fault(
        'waiting',
        'the request fails, always',
        1,
        'is FAILED',
        0.0,
        4,
        0,
        begin=lambda c: (
            [
                c.clock.at(300 + 700 * i, lambda: setattr(c, 'state', c.state and 'FAILED'))
                for i in range(60)
            ]
            and None
        ),
        cloud={'queue': [None]},
    ),
    Fault(
        'waiting',
        'somebody deletes the request',
        1,
        'somebody deleted it',
        0.0,
        1,
        0,
        begin=at(300, 'take_away', None),
        cloud={'queue': [None]},
    ),
    Fault(
        'waiting',
        'Ctrl-C, and the command again',
        0,
        TO_THE_END,
        1.09,
        cloud=late('describe', 4, 1, interrupt),
        again=True,
    ),
    Fault(
        'ready',
        'the upload fails, always (disk full)',
        1,
        'No space left',
        0.18,
        1,
        0,
        always('scp', DISK),
    ),
    Fault(
        'ready',
        'the upload loses its connection twice',
        0,
        TO_THE_END,
        1.16,
        cloud=first('scp', 2, errors.SSH),
    ),
    Fault(
        'ready',
        'the disk of one of four hosts is full',
        1,
        'No space left on device on host 2',
        0.19,
        1,
        0,
        always('unpack', UNPACKED) | {'hosts': 4},
    ),
    Fault(
        'ready', 'no Python on the hosts', 1, 'no Python', 0.19, 1, 0, always('unpack', NO_PYTHON)
    ),
    Fault(
        'ready',
        'hosts never answer (firewall)',
        1,
        'never answered',
        1.01,
        1,
        0,
        {'faults': {('status', 0): errors.SSH}},
    ),
    Fault(
        'ready', 'only uploads never arrive', 1, 'timed out', 1.99, 1, 0, always('scp', errors.SSH)
    ),
    Fault(
        'ready',
        'preempted during the installation',
        0,
        TO_THE_END,
        1.14,
        2,
        begin=at(800, 'take_away'),
    ),
    Fault(
        'ready',
        'gcloud repeats the start after an error of ssh',
        0,
        TO_THE_END,
        1.09,
        cloud=first('start', 1, fake.repeat),
    ),
    Fault(
        'ready',
        'the answer to the start is lost',
        0,
        TO_THE_END,
        1.09,
        cloud=first('start', 1, fake.lose_answer('start')),
    ),
    Fault(
        'ready',
        'the start reaches one host',
        0,
        TO_THE_END,
        1.11,
        cloud=first('start', 1, fake.reach_first_host),
    ),
)
