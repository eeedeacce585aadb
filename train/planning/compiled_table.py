"""Prints what the compiler says about every program of a run, beside the estimates.

python -m scripts.run --config configs/released/qwen3_0p6b_gsm8k.py --workdir runs/x \\
    --dry_run --topology=v5e-8 --compile --programs='train step|decode 256 x 688'

Each program is printed as soon as it is compiled. A program that does not fit is refused at the
end, with the nearest change that fits.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping

import jax

from elenchus.model import memory_estimate, platforms
from elenchus.model.memory_estimate import GIB
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import compiled, dry_run, least_work, machines, memory_plan, programs
from elenchus.train.planning.compiled import CompiledProgram
from elenchus.train.planning.machines import Topology
from elenchus.train.planning.memory_plan import Phase, RunPlan
from elenchus.train.planning.program_cost import Cost


def compile_run(s: RunSettings, topology: str, *, only: str = '') -> list[CompiledProgram]:
    """Compiles and prints the programs of a run whose name the regular expression `only` finds.

    Raises ValueError, with the nearest change that fits, if a program does not fit, or if `only` is
    no regular expression.
    """
    try:
        needed = re.compile(only or '.')
    except re.error as error:
        raise ValueError(
            f'--programs={only!r} is no regular expression: {error}; nearest: {re.escape(only)!r}'
        ) from None
    machine = machines.topology(topology)
    plan = dry_run.plan_for(s, machine)
    phases = memory_plan.phases(plan, machine)

    def selected(name: str) -> bool:
        return bool(needed.search(name)) or not programs.is_large(name)

    def report(program: CompiledProgram) -> None:
        for line in program_lines(program, plan, machine, phase=phase_of(program.name, plan)):
            print(line)

    print(f'XLA, for {machine.name}, on one device (seconds of compiling at the end):')
    compiler = compiled.Compiler(selected=selected, report=report)
    value = platforms.product_precision(s.model.dtype, s.matmul_precision)
    precision = jax.default_matmul_precision(value)
    with precision, compiled.mesh_of(machine, plan.mesh) as mesh:
        for group in programs.groups(s, plan, mesh):
            with contextlib.suppress(compiled.ProgramRefused):
                group(compiler)
    check_compiled(plan, machine, compiler.programs, phases=phases)
    return compiler.programs


def phase_of(name: str, plan: RunPlan) -> Phase | None:
    """Estimated memory of a program by its name; None for programs without an estimate."""
    mesh = memory_estimate.abstract_mesh(plan.mesh)
    shape = re.match(r'(prefill|decode|scoring) (\d+) x (\d+)', name)
    if shape:
        rows, length = int(shape[2]), int(shape[3])
        return {
            'prefill': lambda: memory_plan.prefill_phase(
                plan, mesh, rows=rows, length=length, from_prefixes='from prefixes' in name
            ),
            'decode': lambda: memory_plan.decode_phase(plan, mesh),
            'scoring': lambda: memory_plan.scoring_phase(plan, mesh, rows=rows, length=length),
        }[shape[1]]()
    if name == 'weights of the sampler' and plan.sampling is not None:
        return memory_plan.reshard_phase(plan, mesh)
    names, _, kind = name.partition(': ')
    training = next((t for t in plan.trainings if t.name == names.split(',')[0]), None)
    phase = {
        'train step': memory_plan.training_phase,
        'log-probabilities': memory_plan.logprob_phase,
    }
    return None if training is None or kind not in phase else phase[kind](plan, training, mesh)


def program_lines(
    program: CompiledProgram, plan: RunPlan, machine: Topology, *, phase: Phase | None
) -> Iterator[str]:
    """Lines about one program: memory, then work and collectives, of a step of its loop too."""
    parts = {
        'arguments': program.arguments,
        'outputs': program.outputs,
        'aliased': -program.aliased,
        'temporaries': program.temporaries,
    }
    sizes = ', '.join(f'{name} {size / GIB:.2f}' for name, size in parts.items() if size)
    estimate = '' if phase is None else f' (estimate {phase.program / GIB:.2f})'
    line = f'  {program.name}: {program.total / GIB:.2f} GiB{estimate} = {sizes}; '
    yield line + f'{program.seconds:.0f} s'
    if program.refused:
        yield f'    XLA refuses it: {program.refused}'
        return
    if program.recompiles:
        yield '    its state comes back with another sharding: the second call compiles again'
    if program.cost is None:
        yield '    work and collectives are unknown: jaxlib cannot print this program'
        return
    least = least_work.least_work(plan, machine, program.name)
    # The loop of decoding is a step for each token; that of a prefill only copies prompts.
    by_step = program.name.startswith('decode') and program.cost.step is not None
    yield from cost_lines(program.cost.once, machine, least=None if by_step else least, label='')
    if by_step:
        yield from cost_lines(program.cost.step, machine, least=least, label='a step of its loop: ')


def cost_lines(
    cost: Cost, machine: Topology, *, least: least_work.Least | None, label: str
) -> Iterator[str]:
    """Lines about work, the roofline and collectives."""
    if not cost.flops and not cost.collectives and least is None:
        return
    work = f'{cost.flops:.3g} FLOPs, {cost.memory_bytes / 1e9:.3g} GB of memory traffic'
    if least is not None:
        work += f' (least {least.flops:.3g}, {least.memory_bytes / 1e9:.3g})'
    if cost.kernels:
        work += f', without those in {cost.kernels} calls of kernels'
    peaks = machines.CHIPS[machine.chip].peaks if machine.chip in machines.CHIPS else None
    if peaks is not None:
        limits = least_work.seconds(cost, peaks)
        slowest = max(limits, key=limits.get)
        work += f'; at the peaks {limits[slowest] * 1e3:.3g} ms ({slowest})'
        if least is not None:
            work += f', least {least.seconds(peaks) * 1e3:.3g} ms'
    yield f'    {label}{work}'
    for kind, collective in sorted(cost.collectives.items()):
        yield (
            f'    {label}{kind} x {collective.count}: receives '
            f'{collective.received_bytes / 1e9:.3g} GB, largest {collective.largest}'
        )


def check_compiled(
    plan: RunPlan,
    machine: Topology,
    compiled_programs: list[CompiledProgram],
    *,
    phases: Mapping[str, Phase],
) -> None:
    """Raises ValueError, with the nearest change that fits, if a program does not fit.

    Counts what is in memory beside the program's own arrays too: reference and other players.
    """
    needs = {}
    for program in compiled_programs:
        phase = phase_of(program.name, plan)
        beside = 0 if phase is None else phase.total - phase.program
        needs[program.name] = program.total + beside
    worst = max(needs, key=needs.get, default=None)
    if worst is None or needs[worst] <= machine.usable:
        return
    # The search estimates; it must aim lower by as much as the estimate is too small.
    estimated = max(phase.total for phase in phases.values())
    ratio = max(1.0, needs[worst] / estimated)
    target = dataclasses.replace(machine, bytes=int(machine.bytes / ratio))
    nearest = memory_plan.nearest_fit(plan, target)
    flags = nearest and dry_run.overrides(plan, target, fitting=nearest)
    advice = f'nearest that should fit: {flags}' if flags else 'no mesh or microbatches fit it'
    raise ValueError(
        f'{machine.name}: {worst} needs {needs[worst] / GIB:.1f} GiB a device by the compiler, '
        f'with what is beside it; usable are {machine.usable / GIB:.1f} of '
        f'{machine.bytes / GIB:.1f} GiB; {advice}'
    )
