"""The configs that commands in the documents run pass all checks of settings."""

import pathlib
import re
import shlex

import pytest
from absl import flags
from ml_collections.config_flags import config_flags

from elenchus.train.config import build, checks
from elenchus.train.config.run_settings import RunSettings

ROOT = pathlib.Path(__file__).parents[2]
LOG = ROOT / 'docs' / 'log.md'  # whose commands are of their day
PAGES = [ROOT / 'README.md', *sorted(set((ROOT / 'docs').rglob('*.md')) - {LOG})]


def commands():
    """Flags of the config of every command with a shipped config, one for each in a document."""
    for page in PAGES:
        text = page.read_text(encoding='utf-8').replace('\\\n', ' ')
        for line in re.findall(r'^python -m scripts\.(?:run|stage) (.*)$', text, re.MULTILINE):
            words = shlex.split(re.sub(r'--config (?=\S)', '--config=', line), comments=True)
            found = [word for word in words if re.match(r'--config[=.]', word)]
            file = re.match(r'--config=(configs/\w[^: ]*\.py)', ' '.join(found))
            if file and (ROOT / file[1]).exists():  # not one that a guide tells to write
                yield pytest.param(found, id=f'{page.stem}-{len(found)}')


@pytest.mark.filterwarnings('ignore:the load_module:DeprecationWarning')  # of ml_collections
@pytest.mark.parametrize('found', list(commands()))
def test_a_command_in_a_document_has_settings_that_go_together(found):
    argv = ['run', found[0].replace('=configs/', f'={ROOT}/configs/'), *found[1:]]
    values = flags.FlagValues()
    config_flags.DEFINE_config_file('config', flag_values=values, sys_argv=argv)
    values(argv)
    checks.check_settings(build.build(RunSettings, values.config))


def test_there_are_commands_to_check():
    found = [parameter.values[0] for parameter in commands()]
    assert len(found) > 20 and sum(len(words) > 1 for words in found) > 5
