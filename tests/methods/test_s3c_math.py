"""S3c-Math: lines that a remark calls wrong are read but not trained."""

import random
import types

from elenchus.configs.methods import s3c_math
from elenchus.data import records
from elenchus.data.critiques import mistakes
from elenchus.data.critiques import self_talk as talk_text
from elenchus.data.critiques.grammars import LAB
from elenchus.data.lab import task
from elenchus.train.config import build
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.stages import self_talk_data
from tests.support.fake_engine import CHAT, TOKENIZER
from tests.support.rollout_cases import PROBLEMS


def test_of_a_talk_only_the_wrong_line_has_weight_zero():
    settings = build.build(RunSettings, s3c_math.get_config('default'))
    attempt = mistakes.corrupt(PROBLEMS[3], rng=random.Random(0))
    critique = task.judge(PROBLEMS[3].question, attempt).critique
    lines = talk_text.lines_with_remarks(attempt, LAB.parse(critique), LAB)
    turn = CHAT.text_turn('attempt', talk_text.join(lines, LAB))
    talk = records.Episode('p', 1, (*CHAT.question_turns(PROBLEMS[3].question), turn), {})
    samplers = types.SimpleNamespace(inputs=types.SimpleNamespace(chat=CHAT, grammar=LAB))
    example = self_talk_data.talk_example(samplers, talk, settings=settings.self_talk)
    unlearnt = example.tokens[(example.loss_mask > 0) & (example.weights == 0)]
    assert TOKENIZER.decode(unlearnt.tolist()).strip() == lines[-1].line
    assert settings.critique.num_relocated == 2  # wrong steps are sampled after right prefixes
