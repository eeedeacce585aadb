"""README, CONTRIBUTING and docs name only what exists: files, modules, flags, fields, functions.

Every command in them is parsed: its module, the config that it loads, and each of its flags.
"""

import ast
import functools
import importlib
import importlib.util
import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

from elenchus.configs import defaults
from elenchus.data.grading import verify
from elenchus.data.problems import loading
from elenchus.train.run import session

ROOT = pathlib.Path(__file__).parents[1]
DOCUMENTS = {
    path.relative_to(ROOT).as_posix(): path.read_text(encoding='utf-8')
    for path in (ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted(ROOT.glob('docs/**/*.md')))
}
README = DOCUMENTS['README.md']
PAST = ('docs/findings.md', 'docs/log.md')
"""Documents of measurements, which may name functions of their time."""
FOLDERS = ('configs', 'data', 'docs', 'model', 'sampling', 'scripts', 'tests', 'train')
PACKAGES = ('data', 'model', 'sampling', 'scripts', 'train')
MAX_README_WORDS = 900
BUILT_IN_FLAGS = {'help', 'helpfull', 'verbosity'}
PLACEHOLDERS = {
    'mine.py',
    'configs/mine.py',
    'configs/from_trl.py',
    'configs/lb.py',
    'confgs/lb.py',
    'C',
    'PATH',
}
"""Configs of the user, and names that are wrong on purpose."""
WRONG_FIELDS = {'train.bogus'}
METRICS = {'data/waste'}
"""Names of metrics that look like paths."""


def faults_by_document(find_faults, *, documents=tuple(DOCUMENTS)):
    """Document -> what `find_faults(its text)` returns, where that is not empty."""
    faults = {name: find_faults(DOCUMENTS[name]) for name in documents}
    return {name: names for name, names in faults.items() if names}


def code_blocks(text, language):
    """The code blocks of a language."""
    return re.findall(rf'^```{language}\n(.*?)^```', text, re.DOTALL | re.MULTILINE)


def without_code_blocks(text):
    """The text between the code blocks."""
    return re.sub(r'^```.*?^```', '', text, flags=re.DOTALL | re.MULTILINE)


def inline_code(text):
    """The contents of `single backticks` outside code blocks."""
    return re.findall(r'`([^`]+)`', without_code_blocks(text))


def commands(text):
    """Commands of the bash blocks and of inline code: one line each, without comments."""
    lines = [line for block in code_blocks(text, 'bash') for line in joined_lines(block)]
    lines += [' '.join(code.split()) for code in inline_code(text)]
    return [line for line in lines if re.search(r'python -m |bash scripts/', line)]


def joined_lines(block):
    """Lines of a shell block, with continued lines joined and comments removed."""
    block = re.sub(r'\\\n\s*', ' ', block)
    return [re.sub(r'(^|\s)# .*', '', line).strip() for line in block.splitlines()]


# Files and sections


def count_words(text):
    """Words outside code blocks: whitespace-separated pieces with a letter or digit.

    Link targets do not count, and neither do the bars of tables.
    """
    prose = re.sub(r'\]\([^)]*\)', ']', without_code_blocks(text))
    return sum(1 for piece in prose.split() if re.search(r'\w', piece))


def test_the_readme_is_short():
    assert count_words(README) <= MAX_README_WORDS


def test_no_document_leads_out_of_the_clone():
    assert not [name for name, text in DOCUMENTS.items() if '../shared' in text]


def test_every_link_leads_to_a_file():
    missing = []
    for name, text in DOCUMENTS.items():
        for target in re.findall(r'\]\(([^)\s]+)\)', without_code_blocks(text)):
            path, _, anchor = target.partition('#')
            file = (ROOT / name).parent / path if path else ROOT / name
            if path.startswith(('http://', 'https://')):
                continue
            if not file.exists() or (anchor and anchor not in anchors(file)):
                missing.append((name, target))
    assert not missing


def anchors(file):
    """Anchors of the headings of a markdown file, as GitHub makes them."""
    headings = re.findall(r'^#+ (.*)', file.read_text(encoding='utf-8'), re.MULTILINE)
    return {re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-') for heading in headings}


def test_every_path_in_backticks_exists():
    path = re.compile(rf'({"|".join(FOLDERS)})/[\w./-]*')
    assert not faults_by_document(
        lambda text: [
            code
            for code in inline_code(text)
            if path.fullmatch(code)
            and code not in PLACEHOLDERS | METRICS
            and not (ROOT / code).exists()
        ]
    )


def test_the_code_cites_sections_that_exist():
    cited = re.compile(r'docs/(\w+)\.md,\s+["\']([^"\']+)["\']')
    missing = []
    for path in (path for folder in PACKAGES for path in (ROOT / folder).rglob('*.py')):
        for document, section in cited.findall(path.read_text(encoding='utf-8')):
            text = DOCUMENTS[f'docs/{document}.md']
            if not re.search(rf'^(#+ |- \*\*){re.escape(section)}', text, re.MULTILINE):
                missing.append(f'{path.relative_to(ROOT)}: {document}.md, {section}')
    assert not missing


# Functions and fields


@functools.cache
def sources_by_stem():
    """File stem -> sources of the modules of that name."""
    result = {}
    for path in (path for folder in PACKAGES for path in (ROOT / folder).rglob('*.py')):
        result.setdefault(path.stem, []).append(path.read_text(encoding='utf-8'))
    return result


def is_field(path):
    """True if a dotted path leads to a field or section of the configs, also of studies."""
    if path.partition('.')[0] in ('seeds', 'shared', 'run', 'arms', 'comparison'):
        return True
    config = defaults.get_config()
    for name in path.removeprefix('config.').split('.'):
        if not hasattr(config, 'keys') or name not in config:
            return False
        config = config[name]
    return True


def test_every_function_in_backticks_exists():
    present = [name for name in DOCUMENTS if name not in PAST]
    assert not faults_by_document(missing_functions, documents=present)


def missing_functions(text):
    """Inline code `module.name` whose module exists and does not contain the name."""
    missing = []
    for code in inline_code(text):
        dotted = re.match(r'([a-z]\w*)\.(\w+)[\w.]*', code)
        if not dotted or dotted[1] not in sources_by_stem() or is_field(dotted[0]):
            continue
        if re.match(r'\w+\.(py|jsonl?|md|html)\b', code):
            continue
        sources = sources_by_stem()[dotted[1]]
        if not any(re.search(rf'\b{dotted[2]}\b', source) for source in sources):
            missing.append(code)
    return missing


def test_every_config_field_exists():
    field = re.compile(r'--config\.([\w.]*\w)')
    assert not faults_by_document(
        lambda text: [f for f in field.findall(text) if not is_field(f) and f not in WRONG_FIELDS]
    )


# Commands


def test_every_command_names_its_script_config_and_flags():
    assert not faults_by_document(
        lambda text: [fault for line in commands(text) for fault in check_command(line)]
    )


def check_command(line):
    """Yields what is wrong with a command: its script, its config, or a flag."""
    if launcher := re.search(r'bash (scripts/\S+\.sh)(.*)', line):
        path, (own, _, passed_on) = ROOT / launcher[1], launcher[2].partition(' -- ')
        if not path.is_file():
            yield f'{line}: no {path}'
        elif path.parent.name == 'launch':
            sources = [path, path.with_name('shared.sh'), *path.parent.glob('*.py')]
            text = '\n'.join(source.read_text(encoding='utf-8') for source in sources)
            for flag in flags_of(own):
                if not re.search(rf'\b{flag}\b', text):
                    yield f'{line}: no flag --{flag}'
            yield from check_arguments(line, 'scripts.run', passed_on)
    for module, arguments in re.findall(r'python -m ([\w.]+)([^&|]*)', line):
        yield from check_arguments(line, module, arguments)


def check_arguments(line, module, arguments):
    """Yields what is wrong with the arguments of a Python module."""
    files = module_files(module)
    if not files:
        if importlib.util.find_spec(module) is None:
            yield f'{line}: no module {module}'
        return
    for config in re.findall(r'--config[ =](\S+)', arguments):
        path, _, variant = config.partition(':')
        if path not in PLACEHOLDERS:
            load_config(path, variant or None)
    defined = defined_flags(files)
    for flag in flags_of(arguments):
        if not flag.startswith('config.') and not any(re.fullmatch(p, flag) for p in defined):
            yield f'{line}: {module} has no flag --{flag}'


def flags_of(arguments):
    """Names of the --flags."""
    return re.findall(r'(?:^|\s)--([a-z][\w.]*)', arguments)


def module_files(module):
    """Source files of a module of the clone; those of a package if it is run as one."""
    path = ROOT / module.replace('.', '/')
    if (path / '__main__.py').is_file():
        return tuple(sorted(path.glob('*.py')))
    return (path.with_suffix('.py'),) if path.with_suffix('.py').is_file() else ()


@functools.cache
def defined_flags(files):
    """Patterns of the flags that some sources define, among them those of define_flags."""
    text = '\n'.join(file.read_text(encoding='utf-8') for file in files)
    if 'flags.define(' in text:
        text += (ROOT / 'train/benchmarks/flags.py').read_text(encoding='utf-8')
    if 'define_flags(' in text:
        text += (ROOT / 'train/config/script_flags.py').read_text(encoding='utf-8')
    names = re.findall(r'DEFINE_\w+\(\s*f?\'([\w{}]+)\'', text)
    names += re.findall(r'add_argument\(\s*\'--(\w+)\'', text)
    return {re.sub(r'{\w+}', r'\\w+', name) for name in names} | BUILT_IN_FLAGS


@functools.cache
def load_config(path, variant=None):
    """Loads a config file; raises ValueError on an unknown variant."""
    spec = importlib.util.spec_from_file_location('described_config', ROOT / path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant) if variant else module.get_config()


# Examples


def test_python_examples_compile_and_their_imports_exist():
    for name, text in DOCUMENTS.items():
        for block in code_blocks(text, 'python'):
            ast.parse(block, name)
            for module, imported in re.findall(r'^from (elenchus\S*) import (.+)$', block, re.M):
                loaded = importlib.import_module(module)
                for attribute in imported.split(', '):
                    if not hasattr(loaded, attribute):
                        importlib.import_module(f'{module}.{attribute}')


def write_problems(folder, example, *, num_train, num_test):
    """Writes problem files of the form that the README shows."""
    folder.mkdir()
    for split, count in (('train', num_train), ('test', num_test)):
        lines = (
            json.dumps(example | {'question': f'{example["question"]} ({i})'}) for i in range(count)
        )
        (folder / f'{split}.jsonl').write_text('\n'.join(lines), encoding='utf-8')


def test_the_readmes_config_of_own_problems_opens_a_run(tmp_path, monkeypatch):
    (block,) = (b for b in code_blocks(README, 'python') if 'def get_config' in b)
    assert len(block.strip().splitlines()) <= 12
    (example,) = map(json.loads, code_blocks(README, 'json'))
    (tmp_path / 'mine.py').write_text(block, encoding='utf-8')
    config = load_config(tmp_path / 'mine.py')
    sizes = {'num_train': config.data.num_train, 'num_test': config.data.num_test}
    write_problems(tmp_path / 'problems', example, **sizes)
    monkeypatch.chdir(tmp_path)
    with verify.Verifier(num_workers=1, timeout_s=5.0) as verifier:
        run = session.open_run(config, tmp_path / 'run', verifier=verifier)
    assert len(run.inputs.train_problems) == sizes['num_train']
    assert run.inputs.train_problems[0].solution == example['solution']


def test_the_readmes_problem_is_a_problem(tmp_path):
    (block,) = code_blocks(README, 'json')
    (tmp_path / 'train.jsonl').write_text(block, encoding='utf-8')
    (problem,) = loading.read_problems(tmp_path / 'train.jsonl')
    assert problem.answer == '7'


@pytest.mark.slow
def test_the_readmes_stages_run_from_python(tmp_path):
    (block,) = (b for b in code_blocks(README, 'python') if 'evaluate(' in b)
    script = tmp_path / 'stages.py'
    script.write_text(block + "print(*figures['accuracy'])\n", encoding='utf-8')
    run = functools.partial(subprocess.run, capture_output=True, text=True, cwd=tmp_path)
    result = run([sys.executable, script], env=os.environ | {'JAX_NUM_CPU_DEVICES': '1'})
    assert result.returncode == 0, result.stderr
    assert 'attempt' in result.stdout.split()
