"""From the fields of `sampling` to samplers: rules of logits and pauses, by role and stage."""

import dataclasses

import pytest

from elenchus.configs import lab as lab_config
from elenchus.data.tools.call_forms import Calls
from elenchus.sampling import slots
from elenchus.sampling import tools as toolboxes
from elenchus.sampling.engine import sampling_methods
from elenchus.sampling.sample_spec import SampleSpec
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.run.samplers import Samplers
from tests.support import fake_run

SOURCE = """
def tilt(logits, where):
    return logits + 1.0


tilt.roles = ('attempt', 'critique')


def go(text, pause):
    return True
"""


@pytest.fixture
def samplers(tmp_path):
    """samplers(**fields of sampling) -> Samplers of the lab."""
    (tmp_path / 'mine.py').write_text(SOURCE)

    def samplers(**fields):
        config = lab_config.get_config('smoke')
        config.sampling.update({k: v.format(tmp_path / 'mine.py') for k, v in fields.items()})
        settings = build.build(RunSettings, config).sampling
        inputs = dataclasses.replace(fake_run.make_inputs(), vocab_size=config.model.vocab_size)
        return Samplers(settings, inputs).checked()

    yield samplers
    slots.load.cache_clear()


def test_without_rules_methods_and_engines_are_as_before(samplers):
    s = samplers()
    assert type(s.method()) is sampling_methods.TemperatureSampling
    assert type(s.greedy()) is sampling_methods.Greedy
    assert s.settings.sampler_engine is s.settings.engine
    assert type(SampleSpec.greedy(s.method()).method) is sampling_methods.Greedy


def test_a_rule_is_part_of_every_method_and_of_the_roles_that_it_names(samplers):
    s = samplers(logits='{}:tilt')
    for method in (s.method(), s.method(0.3), s.greedy(), SampleSpec.greedy(s.method()).method):
        of = {r: sampling_methods.of_role(method, r, pauses=True) for r in s.settings.limits}
        assert of['attempt'] == of['critique'] == method
        assert of['refinement'] == sampling_methods.without_rules(method)
        assert method.banned == s.inputs.banned_ids
    assert s.method(0.3).method.temperature == 0.3
    assert hash(s.method()) == hash(samplers(logits='{}:tilt').method())


def test_turns_pause_only_in_samplers_of_whole_turns(samplers):
    s = samplers(pause='line', after_pause='{}:go')
    whole, lines = s.whole_turns(), s.lines()
    assert whole.after_pause('', None) is True and lines.after_pause is None
    # A turn that goes on has a prompt of any length.
    engine = dataclasses.replace(s.settings.engine, prompt_buckets=(320,))
    longer = dataclasses.replace(s.settings, engine=engine).sampler_engine
    assert longer.prompt_buckets == (320, engine.max_length)
    assert whole.engine.settings == s.settings.engine  # its bucket is that long already
    assert sampling_methods.of_role(s.method(), 'attempt', pauses=False) == (
        sampling_methods.without_rules(s.method())
    )


@pytest.mark.parametrize(
    ('fields', 'message'),
    [
        ({'logits': 'wave'}, r"sampling\.logits='wave' must be one of 'none', or a function"),
        ({'pause': 'lines'}, r"sampling\.pause='lines' must be .*nearest: 'line'"),
        ({'pause': 'line', 'after_pause': 'stopp'}, r"after_pause='stopp' .*nearest: 'stop'"),
        ({'after_pause': '{}:go'}, r'sampling\.after_pause=.* needs sampling\.pause'),
        ({'logits': '{}:go'}, r'sampling\.logits: go \(.*mine\.py:\d+\) returned True; it must'),
        ({'pause': '{}:tilt'}, r'sampling\.pause: tilt .* raised TypeError: .*it is called as'),
        ({'logits': '{}:titl'}, r"has no function 'titl'; nearest: 'tilt'"),
    ],
)
def test_what_is_wrong_is_said_before_a_run_starts(samplers, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        samplers(**fields)
    assert '\n' not in str(error.value)


def samplers_with(tools):
    config = lab_config.get_config('smoke')
    config.sampling.tools.update(tools)
    settings = build.build(RunSettings, config).sampling
    inputs = dataclasses.replace(fake_run.make_inputs(), vocab_size=config.model.vocab_size)
    return Samplers(settings, inputs).checked()


LAB_TOOL = {'use': ('elenchus.configs.methods.cosc:last_digit',), 'form': 'equation'}


def test_tools_pause_the_turns_of_their_roles_and_answer():
    s = samplers_with(LAB_TOOL)
    whole = s.whole_turns()
    assert whole.tools.max_calls == 4 and s.lines().tools is None
    of = {r: sampling_methods.of_role(s.method(), r, pauses=True) for r in s.settings.limits}
    assert of['critique'] == sampling_methods.without_rules(s.method())
    equals = s.inputs.tokenizer.encode(' =')[-1]
    assert equals in of['attempt'].pause.function.ids == of['refinement'].pause.function.ids
    assert s.settings.pauses and not samplers_with({}).settings.pauses
    call = whole.tools.calls.find(' ben : eve 7 + 9 =')
    assert whole.tools.answer([call]) == [('6', 'answered')]
    assert s.toolbox.counts == {('last_digit', 'answered'): 1}
    assert hash(s.method()) == hash(samplers_with(LAB_TOOL).method())


@pytest.mark.parametrize(
    ('tools', 'message'),
    [
        ({'use': ('python',)}, "sampling.tools.form='fenced': the vocabulary has no words for"),
        ({**LAB_TOOL, 'form': 'message'}, "template 'elenchus' has no messages of tools"),
        ({'use': ('pyhton',)}, "sampling.tools.use[0]='pyhton' must be one of 'calculator', 'pyt"),
        ({'use': ('python',), 'roles': ('question',)}, 'sampling.tools.roles'),
        ({'use': ('python',), 'timeout_s': 0.0}, 'sampling.tools.timeout_s=0.0 must be at least'),
        ({'use': ('python',), 'isolation': 'none'}, 'sampling.tools.isolation'),
        (
            {'modules': ('sympy', '../x')},
            "sampling.tools.modules[1]='../x' must be the name of a mo",
        ),
    ],
)
def test_a_tool_that_does_not_fit_the_run_is_named_before_it_starts(tools, message):
    with pytest.raises(ValueError) as error:
        samplers_with(tools)
    assert message in str(error.value) and '\n' not in str(error.value)


def test_a_sandbox_that_cannot_start_ends_the_start_in_one_line(monkeypatch):
    monkeypatch.setattr(toolboxes, 'calls_of', lambda settings, chat: Calls('fenced', ('python',)))
    monkeypatch.setattr(toolboxes, 'pause_rule', lambda calls, chat: None)
    with pytest.raises(ValueError, match='the sandbox for programs cannot start: No module named'):
        samplers_with({'use': ('python',), 'modules': ('no_such_module',)})


def test_turns_pause_for_tools_or_for_a_rule():
    config = lab_config.get_config('smoke')
    config.sampling.tools.update(LAB_TOOL)
    config.sampling.pause = 'line'
    with pytest.raises(ValueError, match=r"sampling\.pause='line': with sampling\.tools\.use"):
        build.build(RunSettings, config)
