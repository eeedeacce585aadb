"""Settings that contradict each other, or ask for more than there is, are refused by field."""

import pytest

from elenchus.configs import lab
from elenchus.train.config import build, checks, run_settings


def settings_of(**changes):
    config = lab.get_config('smoke')
    for name, value in changes.items():
        config.update_from_flattened_dict({name.replace('__', '.'): value})
    return build.build(run_settings.RunSettings, config)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'actor__num_problems': 61}, r'actor\.num_problems=61 must be in \[1, 60\]'),
        ({'evaluate__num_problems': 21}, r'evaluate\.num_problems=21 must be in \[1, 20\]'),
        ({'critique__num_inserted': -1}, r'critique\.num_inserted=-1 must be at least 0'),
        (
            {'evaluate__adapt__lora__targets': ()},
            r"^evaluate\.adapt\.lora\.targets=\(\) must be .* nearest: \('query', 'value'\)$",
        ),
        ({'actor__lora__rank': 2, 'actor__lora__targets': ('up', 'up')}, r"near.*: \('up',\)$"),
        ({'critique__raised_temperature': 0.5}, r'\.raised_temperature=0\.5 must be at least 0\.7'),
        ({'critique__num_rollouts': 0}, r'critique\.num_rollouts=0 must be at least 1'),
        ({'critique__filter_successes': 3}, r'\.filter_successes=3 must be at most 2'),
        (
            {
                'critique__filter_samples': 0,
                'critique__filter_successes': 0,
                'critique__filter': 'random',
            },
            r"critique\.filter='random' .* set critique\.filter_samples above 0",
        ),
        ({'critique__rollout_threshold': 1.5}, r'\.rollout_threshold=1\.5 must be at most 1'),
        ({'critique__level_balance': -0.1}, r'critique\.level_balance=-0\.1 must be at least 0'),
        ({'critique__correct_share': 1.0}, r'critique\.correct_share=1\.0 must be at most 0\.999'),
        ({'improve__num_rounds': 0}, r'improve\.num_rounds=0 must be at least 1'),
        ({'improve__threshold': 0.0}, r'improve\.threshold=0\.0 must be at least 1e-06'),
        ({'improve__threshold': 1.5}, r'improve\.threshold=1\.5 must be at most 1'),
        (
            {'improve__weighting': 'threshold', 'improve__controller': 'balance'},
            r"weighting='threshold' and improve\.controller='balance' both set a threshold",
        ),
        (
            {'improve__responses': 'references'},
            r'improve\.num_references=0 must be in \[1, 6\]',
        ),
        (
            {'improve__responses': 'references', 'improve__num_references': 7},
            r'improve\.num_references=7 must be in \[1, 6\]',
        ),
        (
            {'improve__responses': 'none', 'improve__weighting': 'score'},
            r"improve\.responses='none' has no sampled responses to score",
        ),
        (
            {'improve__responses': 'none', 'improve__controller': 'balance'},
            r"improve\.responses='none' has no sampled responses to score",
        ),
        (
            {'improve__explore__min_correct': 0},
            r'improve\.explore\.min_correct=0 must be at least 1',
        ),
        (
            {'improve__controller': 'balance', 'improve__candidates__num_problems': 7},
            r'improve\.candidates\.num_problems=7 must be at most 6',
        ),
        ({'self_talk__num_rounds': 0}, r'self_talk\.num_rounds=0 must be at least 1'),
        ({'evaluate__num_attempts': 0}, r'evaluate\.num_attempts=0 must be at least 1'),
        ({'evaluate__num_rounds': 0}, r'evaluate\.num_rounds=0 must be at least 1'),
        ({'evaluate__budget': -1}, r'evaluate\.budget=-1 must be at least 0'),
        ({'evaluate__confidence': 1.0}, r'evaluate\.confidence=1\.0 must be at most 0\.9999'),
        (
            {'reinforce__critic_rewards__verdict_of': 'steps', 'data__source': 'gsm8k'},
            r"verdict_of='steps' needs known steps, which data\.source='gsm8k' lacks: set it",
        ),
        (
            {'evaluate__beam__num_problems': 21},
            r'evaluate\.beam\.num_problems=21 must be in \[1, 10\]',
        ),
    ],
)
def test_a_stage_cannot_use_more_than_there_is(changes, message):
    checks.check_counts(settings_of())
    with pytest.raises(ValueError, match=message):
        checks.check_counts(settings_of(**changes))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        ({'sampling__engine__quantize': 'int8'}, r"engine\.quantize='int8' is not supported with"),
        ({'base__quantize': 'nf4'}, r"base\.quantize='nf4' is not supported with model\.num_exp"),
        (
            {'actor__lora__rank': 2},
            r"actor\.lora\.targets=.*'gate' is a matrix of .* experts.*near",
        ),
        (
            {'evaluate__adapt__make': 'elenchus.configs.methods.tt_si:similar'},
            r"evaluate\.adapt\.lora\.targets=.*'gate' is a matrix of .* experts.*near",
        ),
    ],
)
def test_experts_are_neither_quantized_nor_adapted(changes, message):
    with_experts = {'model__num_experts': 4, 'model__experts_per_token': 2}
    checks.check_settings(settings_of(**with_experts))
    with pytest.raises(ValueError, match=message):
        checks.check_settings(settings_of(**with_experts, **changes))


@pytest.mark.parametrize(
    'field',
    [
        'reinforce.length',
        'reinforce.critic_length',
        'sampling.engine.max_length',
        'sampling.engine.prompt_buckets',
        'sampling.score.lengths',
        'model.max_length',
    ],
)
def test_a_shape_that_the_longest_conversation_exceeds_is_an_error(field):
    question = 50
    s = settings_of().sampling
    attempt = question + 1 + s.attempt_tokens
    critique = attempt + 1 + s.critique_tokens
    refinement = critique + 1 + s.refinement_tokens
    fitting = {
        'reinforce.length': attempt,
        'reinforce.critic_length': critique,
        'sampling.score.lengths': (critique,),
        'sampling.engine.prompt_buckets': (critique + 1,),
        'sampling.engine.max_length': refinement,
        'model.max_length': max(refinement, settings_of().train.length),
    }
    names = {name: name.replace('.', '__') for name in fitting}
    changes = {names[name]: value for name, value in fitting.items()}
    checks.check_lengths(settings_of(**changes), question)
    value = fitting[field]
    changes[names[field]] = (value[0] - 1,) if isinstance(value, tuple) else value - 1
    with pytest.raises(ValueError, match=rf'^{field}\S*=\d+ must be at least \d+'):
        checks.check_lengths(settings_of(**changes), question)


def test_a_guide_must_fit_before_an_attempt_and_its_critique():
    question, guide = 50, 300
    s = settings_of()
    attempt = question + guide + 1 + s.sampling.attempt_tokens
    whole = attempt + 1 + s.sampling.critique_tokens
    fitting = {
        'reinforce__critic_length': 4096,
        'sampling__engine__prompt_buckets': (attempt + 1,),
        'sampling__engine__max_length': whole,
        'model__max_length': whole,
    }
    checks.check_lengths(settings_of(**fitting), question, longest_guide=guide)
    for field in ('sampling__engine__prompt_buckets', 'sampling__engine__max_length'):
        name = field.replace('__', r'\.')
        with pytest.raises(ValueError, match=rf'^{name}\S*=\d+ must be .* guide of 301'):
            checks.check_lengths(settings_of(**fitting), question, longest_guide=guide + 1)
        value = fitting[field]
        fitting[field] = (attempt + 2,) if isinstance(value, tuple) else value + 1


def test_a_refinement_that_becomes_an_attempt_must_fit_too():
    longer = {'sampling__refinement_tokens': settings_of().sampling.attempt_tokens + 100}
    shapes = {
        'model__max_length': 4096,
        'sampling__engine__max_length': 4096,
        'sampling__engine__prompt_buckets': (480,),
        'sampling__score__lengths': (480,),
        'reinforce__length': 480,
        'reinforce__critic_length': 4096,
    }
    checks.check_lengths(settings_of(**longer, **shapes, evaluate__num_rounds=1), 50)
    trees = {'evaluate__tree_problems': 1, 'sampling__tree__grow': 'refinement'}
    for more in ({'evaluate__num_rounds': 2}, trees | {'evaluate__num_rounds': 1}):
        with pytest.raises(ValueError, match=r'score\.lengths\[-1\]=480 must be at least'):
            checks.check_lengths(settings_of(**longer, **shapes, **more), 50)


def test_an_answer_in_self_talk_must_fit():
    limit = settings_of().sampling.engine.max_length
    fitting = limit - 1 - 40
    checks.check_lengths(settings_of(self_talk__tokens=fitting), 40)
    with pytest.raises(ValueError, match=rf'max_length={limit} must be .* self_talk\.tokens'):
        checks.check_lengths(settings_of(self_talk__tokens=fitting + 1), 40)


def test_a_beam_that_is_off_needs_no_problems():
    off = {'evaluate__beam__width': 0, 'evaluate__beam__num_problems': 1000}
    checks.check_counts(settings_of(**off))


def test_a_tree_search_that_reads_labels_is_no_test():
    values = {'sampling__tree__values': (('min', 1.0), ('rollouts', 1.0))}
    checks.check_settings(settings_of(**values))
    with pytest.raises(ValueError, match=r"evaluate\.tree_problems=2: .* nearest: 'agreement'"):
        checks.check_settings(settings_of(**values, evaluate__tree_problems=2))
    with pytest.raises(ValueError, match=r'sampling\.tree\.values=.* must have a weight above 0'):
        settings_of(sampling__tree__values=(('min', 0.0),))


def test_a_tree_has_tokens_for_a_child_and_problems_that_are_there():
    least = settings_of().sampling.tree.least_tokens(settings_of().sampling.limits)
    on = {'evaluate__tree_problems': 2, 'sampling__tree__num_tokens': least}
    checks.check_settings(settings_of(**on))
    on['sampling__tree__num_tokens'] = least - 1
    with pytest.raises(ValueError, match=rf'num_tokens={least - 1} must be 0 .* nearest: {least}'):
        checks.check_settings(settings_of(**on))
    with pytest.raises(ValueError, match=r'evaluate\.tree_problems=11 must be in \[0, 10\]'):
        settings_of(evaluate__tree_problems=11)


def test_shares_of_documents_sum_to_one():
    with pytest.raises(ValueError, match=r'base\.shares=.* sum to 1, not 1\.6'):
        settings_of(base__shares__drill=0.9)


def test_lengths_count_the_tokens_between_turns():
    s = settings_of()
    checks.check_lengths(s, 10, overhead=1)
    with pytest.raises(ValueError, match='must be at least'):
        checks.check_lengths(s, 10, overhead=100)


def test_critiques_by_rollouts_have_request_ids_for_all_attempts_and_tokens():
    many = {f'critique__num_{name}': 4 for name in ('attempts', 'relocated', 'inserted')}
    many |= {'critique__num_rollouts': 800, 'sampling__attempt_tokens': 4096}
    many |= {'critique__references': 'none', 'critique__num_problems': 55}
    checks.check_ids(settings_of(**many, critique__annotator='oracle'))
    with pytest.raises(ValueError, match=r'^critique\.num_problems=55: .*; nearest: 54$') as error:
        checks.check_ids(settings_of(**many, critique__annotator='monte_carlo'))
    assert '\n' not in str(error.value)
    fitting = many | {'critique__num_problems': 54}
    checks.check_ids(settings_of(**fitting, critique__annotator='monte_carlo'))
    with pytest.raises(ValueError, match=r'nearest: 50$'):
        added = fitting | {'critique__references': 'kept'}  # one more attempt at each problem
        checks.check_ids(settings_of(**added, critique__annotator='monte_carlo'))


def test_the_filter_has_request_ids_for_the_attempts_of_all_constructions():
    many = {f'critique__num_{name}': 9000 for name in ('attempts', 'relocated', 'inserted')}
    many |= {'critique__num_problems': 55, 'critique__filter_samples': 1000}
    with pytest.raises(ValueError, match=r'^critique\.num_attempts asks for 27000000 samples'):
        checks.check_ids(settings_of(**many))
