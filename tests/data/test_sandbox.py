"""Programs in the sandbox: what they may do, what they may not, and that the next one runs."""

import dataclasses
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from elenchus.data.tools import program, seccomp
from elenchus.data.tools.sandbox import Sandbox, SandboxSettings

# Long enough for a busy machine; programs that only their time ends have `HURRIED`.
SETTINGS = SandboxSettings(20.0, 128, 2000, (), 'namespaces')
HURRIED = dataclasses.replace(SETTINGS, timeout_s=0.3)
REASON = seccomp.reason_unsupported()
pytestmark = pytest.mark.skipif(bool(REASON), reason=f'the sandbox {REASON}')
SECRET = 'key-7f3a91c2'
FLAG = pathlib.Path('/tmp/elenchus-sandbox-attack')


@pytest.fixture(scope='module')
def box():
    os.environ['ATTACKED_API_KEY'] = SECRET
    try:
        with Sandbox(SETTINGS) as opened:
            opened.run(['1'])
            yield opened
    finally:
        del os.environ['ATTACKED_API_KEY']


@pytest.fixture(scope='module')
def hurried_box(box):
    with Sandbox(HURRIED) as opened:
        opened.run(['1'])
        yield opened


def test_a_program_is_answered_by_what_it_prints_and_its_last_value(box):
    cases = {
        'print(1 + 1)\nprint("two")': '2\ntwo',
        'x = 3\nx ** 2': '9',
        'print("a")\n"b"': "a\n'b'",
        'None': 'no output: print what you want to read',
        '': 'no output: print what you want to read',
        'import math\nmath.comb(40, 20)': '137846528820',
        'from fractions import Fraction\nFraction(1, 3) + 1': 'Fraction(4, 3)',
        'import statistics, datetime\n'
        'datetime.datetime.strptime("2 May 2020", "%d %b %Y").year': '2020',
        'print("é 中 😀")': 'é 中 😀',
        'import random\nrandom.random()': '0.8444218515250481',
        '{"b", "a", "c"}': box.run(['{"b", "a", "c"}'])[0].text,
        'exit(0)': 'no output: print what you want to read',
        'def f(n): return 1 if n == 0 else n * f(n - 1)\nf(20)': '2432902008176640000',
    }
    for answer, wanted in zip(box.run(list(cases)), cases.values(), strict=True):
        assert answer == (wanted, 'answered')


def test_a_program_finds_no_trace_of_the_one_before(box):
    look = (
        'import sys, gc\n'
        'frame, texts = sys._getframe(), []\n'
        'while frame := frame.f_back:\n'
        '    texts += [str(value) for value in frame.f_locals.values()]\n'
        'any("%d" % (6 * 111111) in text for text in texts)'
    )
    printed, found = box.run(['print(666666)', look])
    assert (printed.text, found.text) == ('666666', 'False')


def test_a_mistake_is_named_with_its_line(box):
    cases = {
        'x = 1\nx / 0': 'line 2: ZeroDivisionError: division by zero',
        'print("a")\ny': "a\nline 2: NameError: name 'y' is not defined",
        'if True\n    1': "line 1: SyntaxError: expected ':'",
        'def f(): return f()\nf()': 'line 1: RecursionError: maximum recursion depth exceeded',
        'print(10 ** 5000)': 'line 1: ValueError: Exceeds the limit (4300 digits)',
        'import sys\nsys.exit("no such number")': 'no such number',
        'raise KeyboardInterrupt': 'line 1: KeyboardInterrupt',
        'x = "\0"': 'source code string cannot contain null bytes',
        'class E(Exception):\n    def __str__(self): return 1 / 0\nraise E': 'line 3: E',
        'import os\nos._exit(7)': 'no output',
        'import numpy': "line 1: ModuleNotFoundError: no module 'numpy' in the sandbox; it has abc",
        'import elenchus.nothing': "no module 'elenchus.nothing' in the sandbox",
        'input()': 'line 1: EOFError: EOF when reading a line',
    }
    for answer, wanted in zip(box.run(list(cases)), cases.values(), strict=True):
        assert wanted in answer.text and answer.outcome in ('error', 'refused')
        assert '/' not in answer.text.replace('1 / 0', '')  # no path of this machine


LIBC = 'import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\n'
NO = program.HAS_NOT
TIME, OUTPUT, CRASH = 'more than 0.3 s', 'more than 2000 characters', 'crashed'
# name -> (program, what the answer says); '' where it says nothing of the attack.
ATTACKS = {
    'fork bomb': ('import os\nwhile True: os.fork()', NO),
    'fork by machine code': (LIBC + 'print(libc.fork(), ctypes.get_errno())', '-1 1'),
    'clone by number': (LIBC + 'print(libc.syscall(56, 0x11, 0, 0, 0, 0))', '-1'),
    'a program': ('import os\nos.execv("/bin/sh", ["sh", "-c", "true"])', NO),
    'a shell': (f'import os\nprint(os.system("touch {FLAG}"))', ''),
    'subprocess': (f'import subprocess\nsubprocess.run(["touch", "{FLAG}"])', NO),
    'posix_spawn': ('import os\nprint(os.posix_spawn("/bin/true", ["true"], {}))', NO),
    'threads': ('import threading\nthreading.Thread(target=print).start()', NO),
    'reads a file': ('print(open("/etc/passwd").read())', NO),
    'reads this file': (f'print(open({__file__!r}).read())', NO),
    'writes a file': (f'open("{FLAG}", "w").write("x")', NO),
    'creates by number': (LIBC + f'print(libc.open(b"{FLAG}", 0x41, 0o600))', '-1'),
    'io_uring': (LIBC + 'print(libc.syscall(425, 1, 0))', '-1'),
    'memory file': ('import os\nos.memfd_create("x")', NO),
    'a symlink': (f'import os\nos.symlink("/etc", "{FLAG}")', NO),
    'deletes': (f'import os\nos.remove({__file__!r})', NO),
    'changes its root': ('import os\nos.chroot(".")', NO),
    'lists folders': ('import os\nprint(os.listdir("/"))', NO),
    'proc': ('print(open("/proc/self/environ").read())', NO),
    'proc of the parent': ('import os\nprint(open(f"/proc/{os.getppid()}/mem", "rb"))', NO),
    'environment': ('import os\nprint(dict(os.environ))', ''),
    'environment in memory': (
        LIBC + 'libc.getenv.restype = ctypes.c_char_p\nprint(libc.getenv(b"ATTACKED_API_KEY"))',
        'None',
    ),
    'a socket': ('import socket\nsocket.socket()', NO),
    'resolves a name': ('import socket\nsocket.getaddrinfo("localhost", 80)', ''),
    'a pair of sockets': ('import socket\nsocket.socketpair()', NO),
    'kills its parent': ('import os\nos.kill(os.getppid(), 9)', NO),
    'kills by machine code': (LIBC + 'print(libc.kill(-1, 9))', '-1'),
    'traces its parent': (LIBC + 'print(libc.ptrace(16, libc.getppid(), 0, 0))', '-1'),
    'inherited descriptors': (
        'import os\n'
        'for i in range(3, 300):\n'
        '    try:\n'
        '        os.write(i, b"x")\n'
        '        print("open", i)\n'
        '    except OSError as error:\n'
        '        assert error.errno == 9\n'
        'print("none")',
        'none',
    ),
    'memory': ('x = []\nwhile True: x.append(bytearray(1 << 26))', 'MemoryError'),  # soon full
    'one great block': ('bytearray(1 << 40)', 'MemoryError'),
    'output': ('while True: print("x" * 1000)', OUTPUT),
    'output by descriptor': ('import os\nwhile True: os.write(1, b"x" * 65536)', OUTPUT),
    'endless loop': ('while True: pass', TIME),
    'endless loop in C': ('sum(range(10 ** 15))', TIME),
    'great powers': ('9 ** 9 ** 9', TIME),
    'a slow pattern': ('import re\nre.match("(a+)+b", "a" * 40)', TIME),
    'ignores signals': (
        'import signal\n'
        'for s in range(1, 65):\n'
        '    try: signal.signal(s, signal.SIG_IGN)\n'
        '    except (OSError, ValueError): pass\n'
        'while True: pass',
        TIME,
    ),
    'catches all': ('while True:\n    try:\n        while True: pass\n    except: pass', TIME),
    'closes its output and goes on': (
        'import os\nos.close(1)\nos.close(2)\nwhile True: pass',
        TIME,
    ),
    'sleeps': ('import time\ntime.sleep(1000)', NO),
    'waits for itself': (
        'import threading\nlock = threading.Lock()\nlock.acquire()\nlock.acquire()',
        CRASH,
    ),
    'stops itself': ('import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)', NO),
    'goes on at exit': ('import atexit\n_ = atexit.register(lambda: print("late"))', 'no output'),
    'goes on when deleted': (
        'class A:\n    def __del__(self):\n        while True: pass\na = A()\ndel a',
        TIME,
    ),
    'deep recursion in C': ('x = ()\nfor _ in range(3 * 10 ** 5): x = (x,)\nhash(x)', CRASH),
    'a wild pointer': ('import ctypes\nctypes.string_at(1)', CRASH),
    'raises its limits': (
        'import resource\nresource.setrlimit(resource.RLIMIT_AS, (-1, -1))',
        'not allowed to raise',
    ),
    'deletes its limits in memory': (
        'import gc, elenchus.data.tools.server as s\n'
        's.Limits = None\n'
        's._watch = None\n'
        'while True: pass',
        TIME,
    ),
    'frames to builtins': (
        'f = (lambda: 0).__globals__["__builtins__"]\n'
        'import sys\nprint(sys._getframe().f_back.f_back.f_globals["os"].fork())',
        NO,
    ),
    'subclasses': (
        'for c in object.__subclasses__():\n'
        '    if c.__name__ == "Popen": c(["true"])\n'
        'import os\nos.popen("true")',
        NO,
    ),
    'imports from memory': (
        'import sys\nsys.path.insert(0, "/tmp")\nsys.meta_path.pop()\nimport attack_module',
        "No module named 'attack_module'",
    ),
    'imports from the disk': (
        'import sys, importlib.machinery as m\n'
        f'm.SourceFileLoader("x", {__file__!r}).load_module()',
        NO,
    ),
    'a library': ('import ctypes\nctypes.CDLL("/lib/x86_64-linux-gnu/libcrypt.so.1")', 'OSError'),
    'a new filter': (LIBC + 'print(libc.prctl(22, 2, 0))', '-1'),
    'other calling convention': (
        LIBC + 'print(libc.syscall(0x40000000 | 39))',
        CRASH,
    ),
    'outlives its parent': (LIBC + 'print(libc.prctl(1, 0), libc.setsid())', '-1 -1'),
    'namespaces of its own': (LIBC + 'print(libc.unshare(0x10000000))', '-1'),
    'poisons memory': (
        LIBC + 'libc.aligned_alloc.restype = ctypes.c_void_p\n'
        'page = ctypes.c_void_p(libc.aligned_alloc(4096, 4096))\n'
        'print(libc.madvise(page, 4096, 100))',
        '-1',
    ),
    'forges an answer': ('import os\nos.write(1, b\'["done", "42", ""]\')', '["done", "42", ""]'),
}


@pytest.mark.parametrize('name', ATTACKS)
def test_an_attack_stays_inside_and_the_same_server_runs_the_next_program(box, hurried_box, name):
    code, wanted = ATTACKS[name]
    box = hurried_box if wanted == TIME else box
    (before,) = box._idle
    (answer,) = box.run([code])
    assert wanted in answer.text, answer
    assert SECRET not in answer.text and 'root:' not in answer.text
    if wanted in (NO, TIME, OUTPUT, CRASH):
        assert answer.outcome == 'refused' and 'refused: ' in answer.text
    assert box.run(['6 * 7']) == [('42', 'answered')]
    # The same server goes on, and nothing stays behind it.
    assert box._idle == [before] and before.is_alive
    _wait_for(lambda: not _descendants(before.pid))
    assert not FLAG.exists() and pathlib.Path(__file__).exists()


@pytest.mark.slow
@pytest.mark.parametrize('name', ATTACKS)
def test_the_next_program_runs_within_a_second(box, hurried_box, name):
    """By the clock, so on a machine without other work."""
    code, wanted = ATTACKS[name]
    box = hurried_box if wanted == TIME else box
    box.run([code])
    start = time.perf_counter()
    assert box.run(['6 * 7']) == [('42', 'answered')]
    assert time.perf_counter() - start < 1.0


def test_there_are_enough_attacks():
    assert len(ATTACKS) >= 50


def test_without_namespaces_the_filter_holds_as_well():
    names = [name for name, (_, wanted) in ATTACKS.items() if wanted in (NO, '-1', 'none')]
    settings = dataclasses.replace(SETTINGS, isolation='filter')
    with Sandbox(settings, num_workers=2) as box:
        answers = box.run([ATTACKS[name][0] for name in names])
        assert len(box._idle) == 2
    for name, answer in zip(names, answers, strict=True):
        assert ATTACKS[name][1] in answer.text, (name, answer)


def test_a_server_that_dies_costs_its_program_and_is_replaced(box):
    (before,) = box._idle
    os.kill(before.pid, signal.SIGKILL)
    before.wait()
    (answer,) = box.run(['1'])
    assert answer.outcome == 'refused' and 'its server ended' in answer.text
    assert box.run(['1']) == [('1', 'answered')] and box._idle != [before]


def test_a_server_that_hangs_is_ended(box, monkeypatch):
    (before,) = box._idle
    monkeypatch.setattr(before, '_wall_s', 0.1)
    os.kill(before.pid, signal.SIGSTOP)
    (answer,) = box.run(['1'])
    assert answer.outcome == 'refused' and 'of time' in answer.text
    assert not box._idle and not before.is_alive
    assert box.run(['1']) == [('1', 'answered')]


def test_servers_and_programs_end_with_the_process_that_started_them():
    code = (
        'import os, sys\n'
        'from elenchus.data.tools.sandbox import Sandbox, SandboxSettings\n'
        'box = Sandbox(SandboxSettings(60.0, 128, 100, (), "namespaces"))\n'
        'box.run(["1"])\n'
        'print(box._idle[0].pid, flush=True)\n'
        'box.run(["while True: pass"])\n'
    )
    parent = subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, text=True)
    server_pid = int(parent.stdout.readline())
    _wait_for(lambda: len(_descendants(server_pid)) == 2)  # the program, and who watches it
    pids = (server_pid, *_descendants(server_pid))
    parent.kill()
    parent.wait()
    parent.stdout.close()
    _wait_for(lambda: not any(_runs(pid) for pid in pids))


def _wait_for(condition):
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _descendants(pid):
    try:
        pids = pathlib.Path(f'/proc/{pid}/task/{pid}/children').read_text().split()
    except OSError:
        return []
    return [each for child in map(int, pids) for each in (child, *_descendants(child))]


def _runs(pid):
    try:
        return pathlib.Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0] != 'Z'
    except OSError:
        return False
