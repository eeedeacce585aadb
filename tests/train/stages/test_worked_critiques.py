"""The grammar `worked` in the data of actor and critic on free text."""

import functools
import random
import types

import pytest

from elenchus.data.critiques import grammars
from elenchus.data.records import Episode, Problem
from elenchus.data.text import chat as chats
from elenchus.data.text import prompts
from elenchus.data.text import tokenizer as tokenizers
from elenchus.train.run.parts import Parts
from elenchus.train.stages import actor, critique_data

PENS = Problem(
    'p', '7 boxes have 12 pens each. 5 are lost. How many are left?', '79',
    '7 boxes have 7*12 = 84 pens.\n84-5 = 79 are left.\n#### 79', 2, 'x',
)  # fmt: skip
CRITIQUE = grammars.Critique(
    (grammars.StepVerdict('7*12 = 83', False, 'It is 84.'),), False, 'It is 79.'
)
TEXT = grammars.RELEASED.write(CRITIQUE)


@functools.cache
def chat(grammar):
    model = tokenizers.train_tokenizer([TEXT, PENS.solution], vocab_size=320, model_type='bpe')
    tokenizer = tokenizers.SentencePieceTokenizer(model)
    return chats.Chat(tokenizer, prompts=prompts.Prompts(grammar=grammar))


def is_worked(text):
    """Whether the verdict on the first step comes behind its explanation."""
    return text.index('Explanation: ') < text.index('Correctness of the step: ')


@pytest.mark.parametrize(('name', 'worked'), [('', False), ('released', False), ('worked', True)])
@pytest.mark.parametrize('critiques', ['stated', 'calculator'])
def test_the_actor_reads_critiques_in_the_grammar_of_the_critic(name, worked, critiques):
    rng = random.Random(0)
    example = actor.refinement(chat(name), PENS, rng=rng, critiques=critiques)
    assert is_worked(chat(name).tokenizer.decode(example.tokens.tolist())) == worked
    turns = actor.criticised_attempt(chat(name), PENS, PENS.solution)
    assert is_worked(chat(name).text(turns[-1])) == worked


@pytest.mark.parametrize('grammar', [grammars.RELEASED, grammars.WORKED])
def test_critiques_of_any_annotator_train_the_critic_in_its_grammar(grammar, tmp_path):
    this_chat = chat(grammar.name)
    attempt = this_chat.text_turn('attempt', '7*12 = 83\n#### 83')
    episode = Episode('p', 2, (*this_chat.question_turns(PENS.question), attempt))
    (tmp_path / 'config.json').touch()
    samplers = types.SimpleNamespace(
        inputs=types.SimpleNamespace(chat=this_chat, grammar=grammar),
        whole_turns=lambda: types.SimpleNamespace(engine=types.SimpleNamespace(tokens=0)),
    )
    stage = types.SimpleNamespace(
        parts=lambda name, items: Parts(tmp_path / name, items, 1, tmp_path / 'config.json', name)
    )
    alive, _ = critique_data.annotate(
        {0: episode},
        {'p': PENS},
        annotator=lambda sampler, first: lambda attempts: [TEXT for _ in attempts],
        samplers=samplers,
        stage=stage,
    )
    text = this_chat.text(alive[0].critique)
    assert text == grammar.write(CRITIQUE)
    assert alive[0].critique.facts.verdict is False
