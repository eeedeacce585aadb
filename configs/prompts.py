r"""Published prompts by name, as values of the section `prompts` of a config, with their sources.

    from elenchus.configs import prompts

    config.prompts.update(prompts.PRESETS['mathcritique'])

A preset sets the roles that its source has a prompt for; `several` joins presets of other roles.
Quoted words are those of the sources, because a model is compared under the prompt of its paper.
"""

from ml_collections import ConfigDict

from elenchus.configs.sections import prompt

BOXED = 'Please reason step by step, and put your final answer within \\boxed{}.'

_ANSWER_IS = "Please also give your final number in the format of 'The answer is [your answer].'"
_STEPS = "Let's break it down step by step:\n\n"

_CRITIC = """Instruction:
For a given question, there is a step-by-step solution, where each line is a step. Please check \
step by step to tell me whether the solution is correct or wrong. You should repeat each step and \
give me an explanation on whether this step is correct or wrong. Finally, you should tell me \
whether the final answer is correct or wrong.

Your answer format should be:

Step sentence: [Repeated sentence, ignoring new line break]
Correctness of the step: [Correct/Wrong]
Explanation: [Your Explanation]

Correctness of the final answer: [Correct/Wrong]
Explanation: [Your Explanation]

Question:
{question}

Solution:
{attempt}"""

_REFINER = f"""I have made a step-by-step critic for your solution. Please read the following \
critic and generate a new answer to correct your solution. {_ANSWER_IS}

{{critique}}"""

_PROCESSBENCH = """The following is a math problem and a solution (split into paragraphs, \
enclosed with tags and indexed from 0):

[Math Problem]

{question}

[Solution]

{paragraphs}

Your task is to review and critique the solution paragraph by paragraph. Once you identify an \
error in a paragraph, return the index of the paragraph where the earliest error occurs. \
Otherwise, return the index of -1 (which typically denotes "not found").

Please put your final answer (i.e., the index) in \\boxed{}."""

PRESETS = {
    # github.com/QwenLM/Qwen2.5-Math, README: the system message of its chain-of-thought prompt.
    'qwen2.5-math': {'attempt': prompt() | {'system': BOXED}},
    # github.com/QwenLM/Qwen2.5-Math, evaluation/utils.py: the prompt type `qwen-boxed`.
    'qwen-boxed': {
        'attempt': prompt()
        | {
            'system': 'You are a helpful assistant.',
            'instruction': f'{{question}}\n{BOXED}',
        }
    },
    # github.com/deepseek-ai/DeepSeek-R1, README, "Usage Recommendations": no system message, the
    # directive in the user's message, a response that begins with <think>; temperature 0.6 and
    # top-p 0.95 for its scores. Its template drops thoughts from earlier turns.
    'deepseek-r1': {
        'attempt': prompt() | {'instruction': f'{{question}}\n{BOXED}', 'prefix': '<think>\n'},
        'thinking': 'strip',
    },
    # github.com/WooooDyy/MathCritique, selfimprove/inference.py and critic.py: those of an
    # instruct model on GSM8K. In them the actor reads its attempt with its beginning, the critic
    # without.
    'mathcritique': {
        'attempt': prompt() | {'instruction': f'{{question}} {_ANSWER_IS}', 'prefix': _STEPS},
        'critique': prompt() | {'instruction': _CRITIC},
        'refinement': prompt() | {'instruction': _REFINER, 'prefix': _STEPS},
        'grammar': 'released',
    },
    # github.com/QwenLM/ProcessBench, code/templates/critique_template.txt (arXiv 2412.06559);
    # voting uses 8 samples at temperature 1 and top-p 0.9.
    'processbench': {
        'critique': prompt() | {'instruction': _PROCESSBENCH},
        'grammar': 'boxed',
    },
    # github.com/EleutherAI/lm-evaluation-harness, lm_eval/tasks/gsm8k/gsm8k.yaml, without its five
    # examples; greedy.
    'lm-eval-gsm8k': {'attempt': prompt() | {'instruction': 'Question: {question}\nAnswer:'}},
}


def several(*names: str) -> ConfigDict:
    """Returns the values of presets together. Raises ValueError if two set the same field."""
    joined: dict = {}
    for name in names:
        if name not in PRESETS:
            raise ValueError(f'unknown prompts {name!r}; use some of {", ".join(PRESETS)}')
        if both := sorted(joined.keys() & PRESETS[name].keys()):
            raise ValueError(f'prompts {names} set {both[0]!r} twice; leave one of them out')
        joined |= PRESETS[name]
    return ConfigDict(joined)
