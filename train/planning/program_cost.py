"""Counts what a compiled program does on one device: FLOPs, memory traffic and collectives.

Counts are of XLA's optimised program; the body of a loop is multiplied by its trip count. The body
of a loop of unknown length (decoding) is counted separately, for one step of the loop.
"""

import dataclasses
import math
import re

from elenchus.train.planning import hlo
from elenchus.train.planning.hlo import Array, Computation, Instruction, Program

FREE = {
    'parameter', 'constant', 'get-tuple-element', 'tuple', 'bitcast', 'after-all', 'partition-id',
    'replica-id', 'while', 'conditional', 'call', 'copy-start', 'slice-start', 'opt-barrier',
    'domain', 'async-start', 'async-update', 'async-done', 'add-dependency',
}  # fmt: skip
"""Instructions that move no memory themselves; what they call is counted, and `-done` of copies."""


@dataclasses.dataclass
class Collective:
    """Collectives of one kind."""

    count: int = 0
    received_bytes: float = 0.0  # by one device
    largest: Array | None = None  # result

    def add(self, times: float, received: float, result: Array) -> None:
        """Adds one collective that runs `times` times."""
        self.count += int(times)
        self.received_bytes += times * received
        if self.largest is None or result.bytes > self.largest.bytes:
            self.largest = result


@dataclasses.dataclass
class Cost:
    """What one device does."""

    flops: float = 0.0  # of matrix products
    memory_bytes: float = 0.0  # read from and written to the main memory
    kernels: int = 0  # calls of Pallas and library kernels, whose FLOPs are not counted
    collectives: dict[str, Collective] = dataclasses.field(default_factory=dict)

    @property
    def received_bytes(self) -> float:
        """Bytes that all collectives bring to one device."""
        return sum(c.received_bytes for c in self.collectives.values())


@dataclasses.dataclass
class ProgramCost:
    """Cost of a program without its loops of unknown length, and of one step of these loops."""

    once: Cost
    step: Cost | None  # None: the program has no such loop


def program_cost(text: str) -> ProgramCost:
    """Counts the optimised HLO text of a compiled program."""
    program = hlo.parse(text)
    counter = _Counter(program)
    counter.walk(program.entry, 1.0, counter.once)
    return ProgramCost(counter.once, counter.step)


class _Counter:
    """Walks a program and adds up its costs."""

    def __init__(self, program: Program):
        self._program, self._channels = program, set()
        self.once, self.step = Cost(), None

    def walk(self, computation: Computation, times: float, cost: Cost) -> None:
        """Adds the cost of `times` runs of a computation that is not fused."""
        for instruction in computation.instructions:
            if instruction.opcode == 'while':
                self._loop(computation, instruction, times=times, cost=cost)
            elif instruction.opcode == 'conditional':
                self._branches(instruction, times, cost)
            elif instruction.opcode in ('call', 'async-start'):
                for name in instruction.called:
                    self.walk(self._program.computations[name], times, cost)
            else:
                self._operations(computation, instruction, times=times, cost=cost)
                cost.memory_bytes += times * self._memory(computation, instruction)

    def _loop(self, computation, loop: Instruction, *, times: float, cost: Cost) -> None:
        body = self._program.computations[loop.attribute('body').lstrip('%')]
        count = hlo.trip_count(self._program, computation, loop)
        if count is not None:
            self.walk(body, times * count, cost)
            return
        self.step = self.step or Cost()
        self.walk(body, 1.0, self.step)

    def _branches(self, instruction: Instruction, times: float, cost: Cost) -> None:
        """Adds the branch with the most work: which one runs is known only on the device."""
        counted = []
        for name in instruction.called:
            branch, self_step = Cost(), self.step
            self.walk(self._program.computations[name], 1.0, branch)
            self.step = self_step
            counted.append(branch)
        largest = max(counted, key=lambda c: (c.flops, c.memory_bytes, c.kernels))
        cost.flops += times * largest.flops
        cost.memory_bytes += times * largest.memory_bytes
        cost.kernels += int(times * largest.kernels)
        for kind, value in largest.collectives.items():
            merged = cost.collectives.setdefault(kind, Collective())
            merged.add(times * value.count, value.received_bytes / value.count, value.largest)

    # Products and collectives, which may be inside of fusions

    def _operations(self, computation, instruction: Instruction, *, times, cost: Cost) -> None:
        if instruction.opcode == 'fusion':
            inner = self._program.computations[instruction.called[0]]
            # XLA for TPU divides an asynchronous collective into a start, pieces within products,
            # and an end.
            is_piece = inner.name.startswith('async_collective_fusion')
            is_piece = is_piece or instruction.name.startswith('async-collective-done')
            for fused in inner.instructions:
                if not (is_piece and self._is_counted(fused)):
                    self._operations(inner, fused, times=times, cost=cost)
        elif instruction.opcode == 'dot':
            cost.flops += times * dot_flops(computation, instruction)
        elif instruction.opcode == 'convolution':
            flops = convolution_flops(computation, instruction)
            cost.flops += times * flops / num_row_groups(instruction)
        elif instruction.collective:
            self._collective(computation, instruction, times=times, cost=cost)
        elif instruction.opcode == 'custom-call':
            target = instruction.attribute('custom_call_target') or ''
            cost.kernels += int(times) if target.strip('"') in KERNELS else 0

    def _is_counted(self, instruction: Instruction) -> bool:
        """True for a collective whose channel an earlier one has; unlike others share a channel."""
        return (
            bool(instruction.collective) and instruction.attribute('channel_id') in self._channels
        )

    def _collective(self, computation, instruction: Instruction, *, times, cost: Cost) -> None:
        self._channels.add(instruction.attribute('channel_id'))
        kind, received = received_bytes(computation, instruction)
        result = max(instruction.arrays, key=lambda array: array.bytes)
        cost.collectives.setdefault(kind, Collective()).add(times, received, result)

    # Memory

    def _memory(self, computation: Computation, instruction: Instruction) -> int:
        """Bytes that one run of an instruction reads from and writes to the main memory."""
        if instruction.opcode in FREE:
            return 0
        operands = [computation.by_name[name] for name in instruction.operands]
        if instruction.opcode in ('copy-done', 'slice-done'):
            source = computation.by_name[operands[0].operands[0]]
            return _main(instruction) + (instruction.arrays[0].bytes if _main(source) else 0)
        if instruction.opcode == 'fusion':
            inner = self._program.computations[instruction.called[0]]
            reads = sum(
                min(self._fused_reads(inner, number), _main(operand))
                for number, operand in enumerate(operands)
            )
            return reads + self._fused_writes(inner, instruction)
        if instruction.opcode in ('dynamic-slice', 'slice', 'gather'):
            return _main(instruction) + (instruction.arrays[0].bytes if _main(operands[0]) else 0)
        if instruction.opcode in ('dynamic-update-slice', 'scatter'):
            update = operands[1 if instruction.opcode.startswith('dynamic') else -1]
            return _main(update) + (update.arrays[0].bytes if _main(instruction) else 0)
        if instruction.opcode.endswith('-start'):
            return sum(map(_main, operands))
        if instruction.opcode.endswith('-done'):
            return _main(instruction)
        return sum(map(_main, operands)) + _main(instruction)

    def _fused_reads(self, inner: Computation, number: int) -> int:
        """Bytes of a parameter that a fusion reads: slices alone where it only slices it."""
        parameter = inner.parameters.get(number)
        return 0 if parameter is None else self._reads(inner, parameter)

    def _reads(self, inner: Computation, value: Instruction) -> int:
        whole, total = sum(array.bytes for array in value.arrays), 0
        for user, index in inner.users.get(value.name, ()):
            if user.opcode in ('dynamic-slice', 'slice', 'gather') and index == 0:
                total += user.arrays[0].bytes
            elif user.opcode in ('dynamic-update-slice', 'scatter') and index == 0:
                continue  # updated in place
            elif user.opcode == 'bitcast':
                total += self._reads(inner, user)
            elif user.opcode == 'fusion':
                nested = self._program.computations[user.called[0]]
                total += self._fused_reads(nested, index)
            elif user.opcode not in ('get-tuple-element', 'tuple'):
                return whole
        return min(whole, total)

    def _fused_writes(self, inner: Computation, fusion: Instruction) -> int:
        roots = [inner.root]
        if inner.root.opcode == 'tuple':
            roots = [inner.by_name[name] for name in inner.root.operands]
        if len(roots) != len(fusion.arrays):
            return _main(fusion)
        return sum(
            self._written(inner, root, array)
            for root, array in zip(roots, fusion.arrays, strict=True)
            if array.in_main_memory
        )

    def _written(self, inner: Computation, root: Instruction, array: Array) -> int:
        while root.opcode == 'bitcast':
            root = inner.by_name[root.operands[0]]
        if root.opcode == 'parameter':
            return 0  # passed through
        if root.opcode == 'fusion':
            nested = self._program.computations[root.called[0]]
            return (
                self._written(nested, nested.root, array) if len(root.arrays) == 1 else array.bytes
            )
        if root.opcode not in ('dynamic-update-slice', 'scatter'):
            return array.bytes
        update = root.operands[1 if root.opcode.startswith('dynamic') else -1]
        return min(array.bytes, inner.by_name[update].arrays[0].bytes)


KERNELS = ('tpu_custom_call', '__cudnn$fmhaSoftmax', '__cudnn$fmhaSoftmaxBackward')


def _main(instruction: Instruction) -> int:
    """Bytes of the results that are in the main memory."""
    return sum(array.bytes for array in instruction.arrays if array.in_main_memory)


def dot_flops(computation: Computation, instruction: Instruction) -> int:
    """FLOPs of a `dot`: two for each product."""
    contracted = re.search(r'lhs_contracting_dims=\{([\d,]*)\}', instruction.rest)[1]
    lhs = computation.by_name[instruction.operands[0]].arrays[0]
    inner = math.prod(lhs.dims[int(n)] for n in contracted.split(',') if n)
    return 2 * instruction.arrays[0].size * inner


def convolution_flops(computation: Computation, instruction: Instruction) -> int:
    """FLOPs of a `convolution`, the form of matrix products in TPU programs.

    Window positions on padding, or between dilated inputs, count 0, as in XLA's HloCostAnalysis:
    TPU programs write the batch dimensions of a product as such windows.
    """
    lhs, rhs = (computation.by_name[name].arrays[0] for name in instruction.operands[:2])
    out = instruction.arrays[0]
    lhs_labels, rhs_labels, out_labels = re.search(
        r'dim_labels=(\w+)_(\w+)->(\w+)', instruction.rest
    ).groups()
    window = _window(instruction.rest)
    groups = int(instruction.attribute('batch_group_count') or 1)
    macs = rhs.dims[rhs_labels.index('i')] * out.dims[out_labels.index('f')]
    macs *= lhs.dims[lhs_labels.index('b')] // groups
    for axis in range(len(lhs_labels) - 2):
        digit = str(axis)
        macs *= _valid_positions(
            lhs.dims[lhs_labels.index(digit)],
            out.dims[out_labels.index(digit)],
            **{name: values[axis] for name, values in window.items()},
        )
    return 2 * macs


def num_row_groups(instruction: Instruction) -> int:
    """Groups of rows of a `jax.lax.ragged_dot` in a TPU program; 1 of other products.

    The HLO has it as a product of all rows with every group, with the bounds of the groups.
    """
    if 'ragged_dot_general"' not in instruction.rest:
        return 1
    return _window(instruction.rest)['size'][0]


def _window(rest: str) -> dict[str, list]:
    """size, stride, pad and dilations of a convolution's window, by spatial dimension."""
    match = re.search(r'window=\{([^}]*)\}', rest)
    fields = dict(part.split('=') for part in match[1].split()) if match else {}
    sizes = [int(n) for n in fields['size'].split('x')] if 'size' in fields else []
    read = lambda name: (  # noqa: E731
        [int(n) for n in fields[name].split('x')] if name in fields else [1] * len(sizes)
    )
    pads = fields.get('pad', 'x'.join(['0_0'] * len(sizes))).split('x') if sizes else []
    return {
        'size': sizes,
        'stride': read('stride'),
        'pad': [int(p.split('_')[0]) for p in pads],
        'lhs_dilate': read('lhs_dilate'),
        'rhs_dilate': read('rhs_dilate'),
    }


def _valid_positions(
    inputs: int, outputs: int, *, size, stride, pad, lhs_dilate, rhs_dilate
) -> int:
    """Pairs (output, window position) of one dimension that meet an input."""
    if size == 1 and stride == 1 and pad == 0 and lhs_dilate == 1:
        return outputs
    count = 0
    for position in range(size):
        for output in range(outputs):
            at = output * stride - pad + position * rhs_dilate
            count += at % lhs_dilate == 0 and 0 <= at // lhs_dilate < inputs
    return count


def received_bytes(computation: Computation, instruction: Instruction) -> tuple[str, float]:
    """(kind, bytes that one device receives) of a collective on a ring.

    A 'windowed' product, whose weights are passed around the ring while they are multiplied, counts
    as the all-gather or reduce-scatter that it replaces.
    """
    kind = instruction.collective
    operands = [computation.by_name[name] for name in instruction.operands]
    operand_bytes = sum(array.bytes for operand in operands for array in operand.arrays)
    results = instruction.arrays
    if instruction.opcode.endswith('-start'):
        results = results[len(operands) : 2 * len(operands)] or results
    result_bytes = sum(array.bytes for array in results)
    share = 1 - 1 / group_size(instruction.rest)
    if kind == 'all-gather':
        return kind, result_bytes - operand_bytes
    if kind == 'reduce-scatter':
        return kind, operand_bytes - result_bytes
    if kind == 'all-reduce':
        if 'all-reduce-scatter' in computation.name:
            return 'reduce-scatter', operand_bytes * share
        return kind, 2 * operand_bytes * share
    if kind == 'collective-permute':
        windowed = re.search(r'windowed_dot_general_body_(ag|rs)', computation.name)
        if windowed:
            return {'ag': 'all-gather', 'rs': 'reduce-scatter'}[windowed[1]], operand_bytes
        return kind, operand_bytes
    return kind, operand_bytes * share


def group_size(rest: str) -> int:
    """Devices of one group of a collective."""
    if mesh := re.search(r'replica_groups=mesh\[([^\]]*)\] \{([^}]*)\}', rest):
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", mesh[1]))
        return math.prod(int(sizes[name]) for name in re.findall(r"'(\w+)'", mesh[2]))
    if iota := re.search(r'replica_groups=\[(\d+),(\d+)\]<=', rest):
        return int(iota[2])
    if listed := re.search(r'replica_groups=\{\{([\d,]*)\}', rest):
        return len(listed[1].split(','))
    return 2
