"""Reads the text of a compiled XLA program: computations, instructions, loops, collectives.

XLA's own cost analysis counts the body of a loop once, and the text of a TPU program does not state
how often a loop runs. So trip counts are read here from the loop's condition. A loop without a
constant bound, such as the loop over decoding steps, has none.

Format: https://openxla.org/xla/hlo_dumps
"""

import dataclasses
import functools
import math
import re
from collections.abc import Iterator, Mapping, Sequence

ITEM_BITS = {
    'pred': 8, 's4': 4, 'u4': 4, 's8': 8, 'u8': 8, 's16': 16, 'u16': 16, 's32': 32, 'u32': 32,
    's64': 64, 'u64': 64, 'bf16': 16, 'f16': 16, 'f32': 32, 'f64': 64, 'c64': 64, 'c128': 128,
    'f8e4m3fn': 8, 'f8e5m2': 8,
}  # fmt: skip

COLLECTIVES = (
    'all-gather',
    'all-reduce',
    'reduce-scatter',
    'all-to-all',
    'collective-permute',
    'collective-broadcast',
)

_ARRAY = re.compile(r'\b([a-z][a-z0-9]*)\[([\d,<=\s]*)\](?:\{([^{}]*)\})?')
_NAME = re.compile(r'%([\w.\-]+)')
_CALLED = re.compile(
    r'(?:calls|to_apply|body|condition|branch_computations)=\{?((?:%[\w.\-]+,? ?)+)'
)


@dataclasses.dataclass(frozen=True)
class Array:
    """An array of a program on one device."""

    dtype: str
    dims: tuple[int, ...]
    in_main_memory: bool  # False: in a TPU's on-chip memory, layout S(1) and up

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.dims)

    @property
    def bytes(self) -> int:
        """Bytes without the padding of tiles; an unknown dtype counts as 32 bits."""
        return -(-self.size * ITEM_BITS.get(self.dtype, 32) // 8)

    def __str__(self) -> str:
        return f'{self.dtype}[{",".join(map(str, self.dims))}]'


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One instruction; `rest` is the text after the operands."""

    name: str
    opcode: str
    arrays: tuple[Array, ...]  # results; several for a tuple
    operands: tuple[str, ...]  # names of instructions of the same computation
    argument: str  # the text between the parentheses
    rest: str
    is_root: bool

    @property
    def called(self) -> tuple[str, ...]:
        """Names of the computations that the instruction calls."""
        groups = (match[1] for match in _CALLED.finditer(self.rest))
        return tuple(name for group in groups for name in _NAME.findall(group))

    def attribute(self, name: str) -> str | None:
        """Value of an attribute without spaces, such as `index`; None if it is absent."""
        match = re.search(rf'\b{name}=([^,\s]+)', self.rest)
        return match and match[1]

    @property
    def collective(self) -> str | None:
        """Kind of collective that starts here; None for other instructions."""
        kind = self.opcode.removesuffix('-start')
        return kind if kind in COLLECTIVES else None


@dataclasses.dataclass(frozen=True)
class Computation:
    """Instructions in the order in which they run."""

    name: str
    instructions: tuple[Instruction, ...]

    @functools.cached_property
    def by_name(self) -> Mapping[str, Instruction]:
        """Instructions by name."""
        return {instruction.name: instruction for instruction in self.instructions}

    @functools.cached_property
    def root(self) -> Instruction:
        """The result."""
        return next(i for i in reversed(self.instructions) if i.is_root)

    @functools.cached_property
    def parameters(self) -> Mapping[int, Instruction]:
        """Parameters by number."""
        return {int(i.argument): i for i in self.instructions if i.opcode == 'parameter'}

    @functools.cached_property
    def users(self) -> Mapping[str, Sequence[tuple[Instruction, int]]]:
        """Instruction -> (user, index of the operand)."""
        users: dict[str, list[tuple[Instruction, int]]] = {}
        for instruction in self.instructions:
            for index, operand in enumerate(instruction.operands):
                users.setdefault(operand, []).append((instruction, index))
        return users


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program."""

    computations: Mapping[str, Computation]
    entry: Computation


def parse(text: str) -> Program:
    """Parses the text of an optimised HLO module."""
    computations, entry, name, lines = {}, None, None, []
    for line in text.splitlines():
        if line.rstrip() == '}' and name is not None:
            computations[name] = Computation(name, tuple(_instructions(lines)))
            name = None
        elif line.rstrip().endswith('{') and (line.startswith(('%', 'ENTRY'))):
            name, lines = _NAME.search(line)[1], []
            entry = name if line.startswith('ENTRY') else entry
        elif name is not None and line.startswith('  '):
            lines.append(line)
        elif name is not None and lines:
            lines[-1] += line  # metadata of a kernel goes over several lines
    return Program(computations, computations[entry])


def _instructions(lines: Sequence[str]) -> Iterator[Instruction]:
    for line in lines:
        name, equals, text = line.strip().partition(' = ')
        if not equals:
            continue
        shape_end = _closing(text) + 1 if text.startswith('(') else text.index(' ')
        shape, call = text[:shape_end], text[shape_end:].lstrip()
        opcode, _, after = call.partition('(')
        end = _closing('(' + after) - 1
        yield Instruction(
            name=_NAME.search(name)[1],
            opcode=opcode,
            arrays=tuple(_arrays(shape)),
            operands=tuple(_NAME.findall(after[:end])),
            argument=after[:end],
            rest=after[end + 1 :],
            is_root=name.startswith('ROOT'),
        )


def _closing(text: str) -> int:
    """Index of the parenthesis that closes the first one of `text`."""
    depth = 0
    for match in re.finditer(r'[()]', text):
        depth += 1 if match[0] == '(' else -1
        if not depth:
            return match.start()
    raise ValueError(f'HLO with unbalanced parentheses: {text[:80]}')


def _arrays(shape: str) -> Iterator[Array]:
    for dtype, dims, layout in _ARRAY.findall(shape):
        sizes = tuple(int(n.lstrip('<=')) for n in dims.split(',') if n.strip())
        yield Array(dtype, sizes, re.search(r'S\([1-9]', layout) is None)


# Loops


def trip_count(program: Program, computation: Computation, loop: Instruction) -> int | None:
    """Returns how often a `while` of a computation runs; None if the text does not say.

    XLA's own `known_trip_count` comes first. Otherwise the loop must run while `index < constant`,
    from a constant, by a constant increment.
    """
    known = re.search(r'known_trip_count":\{"n":"(\d+)"', loop.rest)
    if known:
        return int(known[1])
    condition = program.computations[loop.attribute('condition').lstrip('%')]
    bound = _bound(program, condition, condition.root)
    if bound is None:
        return None
    index, limit, limit_index, inclusive = bound
    start_tuple = computation.by_name[loop.operands[0]]
    if limit is None:
        limit = _constant(computation, _operand(computation, start_tuple, limit_index))
    start = _constant(computation, _operand(computation, start_tuple, index))
    step = _step(program, program.computations[loop.attribute('body').lstrip('%')], index)
    if limit is None or start is None or step is None:
        return None
    return max(0, -(-(limit + inclusive - start) // step))


def _bound(program: Program, condition: Computation, root: Instruction):
    """(tuple index, constant limit, tuple index of the limit, inclusive) of `index < limit`."""
    if root.opcode == 'fusion':
        inner = program.computations[root.called[0]].root
        if inner.opcode != 'compare':
            return None
        numbers = [
            _parameter_number(program.computations[root.called[0]], o) for o in inner.operands
        ]
        if None in numbers:
            constants = program.computations[root.called[0]]
            sides = [
                condition.by_name[root.operands[n]] if n is not None else constants.by_name[o]
                for n, o in zip(numbers, inner.operands, strict=True)
            ]
        else:
            sides = [condition.by_name[root.operands[n]] for n in numbers]
        root = inner
    else:
        sides = [condition.by_name[o] for o in root.operands]
    direction = root.attribute('direction')
    if root.opcode != 'compare' or direction not in ('LT', 'LE', 'GT', 'GE'):
        return None
    counter, limit = sides if direction in ('LT', 'LE') else reversed(sides)
    if counter.opcode != 'get-tuple-element':
        return None
    inclusive = direction in ('LE', 'GE')
    if limit.opcode == 'constant':
        return int(counter.attribute('index')), int(limit.argument), None, inclusive
    if limit.opcode == 'get-tuple-element':
        return int(counter.attribute('index')), None, int(limit.attribute('index')), inclusive
    return None


def _parameter_number(computation: Computation, name: str) -> int | None:
    instruction = computation.by_name[name]
    return int(instruction.argument) if instruction.opcode == 'parameter' else None


def _operand(computation: Computation, tuple_: Instruction, index: int) -> Instruction | None:
    return computation.by_name[tuple_.operands[index]] if tuple_.opcode == 'tuple' else None


def _constant(computation: Computation, instruction: Instruction | None) -> int | None:
    """Value of an integer that is a constant, or a copy of one."""
    while instruction is not None and instruction.opcode in ('copy', 'bitcast', 'convert'):
        instruction = computation.by_name[instruction.operands[0]]
    if instruction is None or instruction.opcode != 'constant':
        return None
    return int(instruction.argument) if re.fullmatch(r'-?\d+', instruction.argument) else None


def _step(program: Program, body: Computation, index: int) -> int | None:
    """What a loop's body adds to its counter; None where it is not an addition of a constant."""
    result = _operand(body, body.root, index)
    if result is not None and result.opcode == 'fusion':
        body = program.computations[result.called[0]]
        result = body.root
    if result is None or result.opcode != 'add':
        return None
    added = (_constant(body, body.by_name[operand]) for operand in result.operands)
    return next((n for n in added if n), None)
