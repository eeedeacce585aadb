"""What the sandbox needs of a machine and of packages, and what its filter lets through."""

import dataclasses
import struct
import subprocess
import sys

import pytest

from elenchus.data.tools import sandbox, seccomp
from elenchus.data.tools.sandbox import Sandbox, SandboxSettings, SandboxUnavailableError
from tests.data.test_sandbox import REASON, SETTINGS

pytestmark = pytest.mark.skipif(bool(REASON), reason=f'the sandbox {REASON}')


def test_what_the_machine_lacks_is_said_and_nothing_runs(monkeypatch):
    settings = dataclasses.replace(SETTINGS, modules=('no_such_module',))
    with pytest.raises(SandboxUnavailableError, match="cannot start: No module named 'no_such_mo"):
        Sandbox(settings).run(['1'])
    monkeypatch.setattr(sandbox.ChildProcess, '__init__', _refusing_start)
    with pytest.raises(SandboxUnavailableError, match=r"unshare: .* isolation='filter' goes with"):
        Sandbox(SETTINGS).run(['1'])
    monkeypatch.setattr(seccomp.platform, 'machine', lambda: 'riscv64')
    with pytest.raises(SandboxUnavailableError, match='needs Linux on x86_64 or aarch64; this is'):
        Sandbox(SETTINGS)


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        ('seccomp.install = lambda library: None', 'a first program was not confined: '),
        ('seccomp._PR_SET_SECCOMP = 10 ** 6', 'prctl(seccomp): Invalid argument'),
        ('seccomp.CALLS["openat"] = (257, 56)', 'a first program was not confined: '),
    ],
)
def test_a_machine_that_does_not_confine_a_first_program_is_refused(change, words):
    """The check of the start itself, where the kernel does less than it was called for."""
    code = (
        'from elenchus.data.tools import seccomp, server\n'
        f'{change}\n'
        'print(server._try_out(server.Limits(5.0, 50.0, 1 << 40, 1000)))\n'
    )
    result = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert words in result.stdout, result


def _refusing_start(self, *_, **__):
    self.connection, other = sandbox.connection.Pipe()
    other.send_bytes(b'unshare: Operation not permitted')
    self.kill = lambda: None


def test_a_filter_allows_its_list_and_nothing_else():
    """The instructions, as the kernel runs them, for every number of a call."""
    for machine, column in (('x86_64', 0), ('aarch64', 1)):
        allowed = {call[column] for call in seccomp.CALLS.values()}
        architecture = {'x86_64': 0xC000003E, 'aarch64': 0xC00000B7}[machine]
        verdicts = {
            n: _verdict(machine, n, architecture) for n in (*range(600), 1 << 30, 2**32 - 1)
        }
        assert {n for n, v in verdicts.items() if v == 0x7FFF0000} == allowed
        assert {v for n, v in verdicts.items() if n < 600 and n not in allowed} == {0x00050001}
        assert verdicts[1 << 30] == verdicts[2**32 - 1] == 0x80000000
        assert _verdict(machine, min(allowed), 0x40000003) == 0x80000000  # i386


def _verdict(machine, number, architecture):
    code = [struct.unpack('=HBBI', part) for part in _parts(seccomp.filter_program(machine))]
    accumulator, at = None, 0
    while True:
        kind, jump_true, jump_false, value = code[at]
        at += 1
        if kind == 0x20:
            accumulator = {0: number, 4: architecture}[value]
        elif kind == 0x06:
            return value
        else:
            holds = accumulator == value if kind == 0x15 else accumulator >= value
            at += jump_true if holds else jump_false


def _parts(code):
    return [code[i : i + 8] for i in range(0, len(code), 8)]


SYMPY = {
    'solve(x**2 - 2, x)': '[-sqrt(2), sqrt(2)]',
    'solve([x + y - 3, x - y - 1], [x, y])': '{x: 2, y: 1}',
    'integrate(sin(x)**2, x)': 'x/2 - sin(x)*cos(x)/2',
    'limit(sin(x)/x, x, 0)': '1',
    'summation(x**2, (x, 1, 10))': '385',
    'factorint(10**12 + 1)': '{73: 1, 137: 1, 99990001: 1}',
    'Matrix([[1, 2], [3, 4]]).eigenvals()': '{5/2 - sqrt(33)/2: 1, 5/2 + sqrt(33)/2: 1}',
    'nsolve(cos(x) - x, x, 1)': '0.739085133215161',
    'solveset(x**2 - 4, x, S.Reals)': '{-2, 2}',
    'dsolve(Function("f")(x).diff(x) - x)': 'Eq(f(x), C1 + x**2/2)',
    'lambdify(x, x**2, "math")(3)': '9',
    'sympify("2*x + x")': '3*x',
    'minimal_polynomial(sqrt(2) + sqrt(3), x)': 'x**4 - 10*x**2 + 1',
    'Sum(1/x**2, (x, 1, oo)).doit()': 'pi**2/6',
    'maximum(x*(1 - x), x, Interval(0, 1))': '1/4',
    'Triangle(Point(0, 0), Point(1, 0), Point(0, 1)).area': '1/2',
    'groebner([x**2 + y, x - y]).exprs': '[x - y, y**2 + y]',
    'reduce_inequalities([x**2 < 4], x)': '(-2 < x) & (x < 2)',
}
NUMPY = {
    'float(np.linalg.det(np.eye(3) * 2).round(6))': '8.0',
    'np.random.default_rng(0).integers(10, size=3)': 'array([8, 6, 5])',
    'np.polyfit([0, 1, 2], [1, 3, 5], 1).round(6)': 'array([2., 1.])',
    'np.fft.fft([1, 0, 0, 0]).real': 'array([1., 1., 1., 1.])',
    'str(np.arange(4).reshape(2, 2).tolist())': "'[[0, 1], [2, 3]]'",
}


@pytest.mark.slow
def test_packages_are_there_with_all_that_their_functions_import():
    """What an installed package imports when it is called must have been imported before."""
    settings = SandboxSettings(20.0, 1024, 2000, ('sympy', 'numpy'), 'namespaces')
    start = {'from sympy import *\nx, y = symbols("x y")\n': SYMPY, 'import numpy as np\n': NUMPY}
    cases = [(head + code, text) for head, cases in start.items() for code, text in cases.items()]
    with Sandbox(settings) as box:
        answers = box.run([code for code, _ in cases])
    for (code, text), answer in zip(cases, answers, strict=True):
        assert (answer.text, answer.outcome) == (text, 'answered'), code
