"""Texts of compiled programs: groups of collectives, sizes of arrays, counts of loops."""

import pytest

from elenchus.train.planning import hlo, program_cost


@pytest.mark.parametrize(
    ('groups', 'size'),
    [
        ("replica_groups=mesh['a'=4,'b'=2] {'b'}, x=1", 2),
        ("replica_groups=mesh['a'=4,'b'=2] {'a','b'}", 8),
        ('replica_groups=[2,4]<=[8], dimensions={1}', 4),
        ('replica_groups={{0,1,2},{3,4,5}}', 3),
    ],
)
def test_groups_of_collectives_are_read_in_every_spelling(groups, size):
    assert program_cost.group_size(groups) == size


def test_four_bits_are_half_a_byte():
    assert hlo.Array('s4', (3, 3), True).bytes == 5


LOOP = """\
HloModule jit_f, is_scheduled=true

%below (s: (s32[], s32[], s32[])) -> pred[] {
  %s = (s32[], s32[], s32[]) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %ten = s32[] constant(10)
  ROOT %less = pred[] compare(%i, %ten), direction=LT
}

%body (t: (s32[], s32[], s32[])) -> (s32[], s32[], s32[]) {
  %t = (s32[], s32[], s32[]) parameter(0)
  %j = s32[] get-tuple-element(%t), index=0
  %given = s32[] get-tuple-element(%t), index=1
  %two = s32[] constant(2)
  %next = s32[] add(%j, %STEP)
  ROOT %all = (s32[], s32[], s32[]) tuple(%next, %given, %given)
}

ENTRY %main (a: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %four = s32[] constant(4)
  %start = (s32[], s32[], s32[]) tuple(%START, %a, %a)
  %loop = (s32[], s32[], s32[]) while(%start), condition=%below, body=%body
  ROOT %end = s32[] get-tuple-element(%loop), index=0
}
"""


@pytest.mark.parametrize(
    ('start', 'step', 'count'), [('four', 'two', 3), ('a', 'two', None), ('four', 'given', None)]
)
def test_a_loop_of_unknown_start_or_step_has_no_known_count(start, step, count):
    program = hlo.parse(LOOP.replace('START', start).replace('STEP', step))
    (loop,) = (i for i in program.entry.instructions if i.opcode == 'while')
    assert hlo.trip_count(program, program.entry, loop) == count
