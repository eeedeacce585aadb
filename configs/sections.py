"""Sections that several parts of a config hold: optimizer, fit, adapters, shares, objective.

configs/defaults.py builds the whole tree of them; it has the first comment on how to read them.
"""

from ml_collections import config_dict


def optimizer(learning_rate: float = 0.001, **changes) -> dict:
    """Muon for matrices with AdamW for the rest, or AdamW for all."""
    return {
        'name': 'muon',  # 'muon' or 'adamw'
        'learning_rate': learning_rate,  # at its highest
        'adam_learning_rate': learning_rate / 7,  # of what Muon leaves to AdamW; 0: that stays
        'schedule': 'linear',  # after warm-up: 'constant', 'linear' or 'cosine'
        'warmup_fraction': 0.05,  # share of the steps that warm up
        'weight_decay': 0.0,  # decoupled
        'beta1': 0.9,  # decay of the first moment
        'beta2': 0.95,  # decay of the second moment
        'clip_norm': 1.0,  # largest norm of the gradient
        **changes,
    }


def fit(num_steps: int = 200, learning_rate: float = 0.003, **changes) -> dict:
    """One supervised fit."""
    return {
        'num_steps': num_steps,  # batches; 0: the model stays as it is
        'optimizer': optimizer(learning_rate, **changes),  # fresh for this fit
    }


def lora(rank: int = 0, alpha: float = 32.0) -> dict:
    """Low-rank adapters."""
    return {
        'rank': rank,  # 0: all weights are trained
        'alpha': alpha,  # the adapters' output is scaled by alpha / rank
        'targets': ('query', 'key', 'value', 'out', 'gate', 'up', 'down'),  # adapted matrices
    }


def api(**changes) -> dict:
    """An OpenAI-compatible server that writes critiques, what it may do and what it costs."""
    return {
        'base_url': 'https://api.openai.com/v1',  # or that of a server of your own
        'model': 'gpt-4o',  # as the server names it
        'key_variable': 'OPENAI_API_KEY',  # environment variable with the key
        'cache': 'runs/api_cache',  # folder of answers; equal requests are paid for once
        'temperature': 0.0,  # of the answers
        'max_tokens': 1024,  # of an answer; a longer one is cut off and left out
        'timeout_s': 120.0,  # of a request
        'attempts': 6,  # at a request that fails for a while
        'backoff_s': 1.0,  # before the second attempt; doubles
        'requests_per_minute': 500.0,  # at most
        'parallel': 8,  # open requests
        'prompt_price': 0.0,  # of a million tokens, for usage.txt in the cache
        'answer_price': 0.0,  # of a million tokens of answers
        **changes,
    }


def shares(**kinds) -> dict:
    """Mixture of documents of the lab's base model; sums to 1."""
    return {
        'drill': 0.0,  # look-ups and sums alone
        'worked': 0.0,  # every quantity derived in small steps
        'attempt': 0.0,  # question and solution
        'critique': 0.0,  # question, attempt and critique
        'refinement': 0.0,  # the whole conversation
        **kinds,
    }


def objective() -> dict:
    """A preset of train/objective.py; every other field, if set, overrides the preset's."""
    return {
        'preset': 'grpo',  # sft, reinforce, grpo, dr_grpo, rloo, dapo, gspo or cispo
        'surrogate': config_dict.placeholder(str),  # 'logprob', 'clip' or 'cispo'
        'ratio': config_dict.placeholder(str),  # of a 'token', a 'sequence', or their 'product'
        'on_policy': config_dict.placeholder(bool),  # the update's own log-probabilities are old
        'clip_low': config_dict.placeholder(float),  # the ratio stays above 1 - clip_low
        'clip_high': config_dict.placeholder(float),  # and below 1 + clip_high
        'average': config_dict.placeholder(str),  # by 'token', by 'sequence', or over a 'constant'
        'constant_length': config_dict.placeholder(int),  # divisor of 'constant' (Dr. GRPO)
        'kl': config_dict.placeholder(str),  # estimator: 'none', 'k1' (in the reward), 'k2', 'k3'
        'kl_coef': config_dict.placeholder(float),  # weight of the KL to the reference
        'entropy_coef': config_dict.placeholder(float),  # weight of the entropy
    }


def prompt() -> dict:
    """The prompt of one role; configs/prompts.py has published ones."""
    return {
        'system': '',  # system message; '': that of tokenizer.system
        'instruction': '',  # the user's message, with {question}, {attempt} and the like
        'prefix': '',  # beginning of the turn, which is not sampled and not trained
        'examples': (),  # (message, turn) pairs, shown before
    }


def prompts() -> dict:
    """What the players are told besides the conversation; data/text/prompts.py explains it."""
    return {
        'attempt': prompt(),
        'guide': prompt(),  # of what is written after a guide
        'critique': prompt(),
        'refinement': prompt(),
        'thinking': 'keep',  # <think> blocks: 'keep', 'strip' from later turns, or 'forbid'
        'grammar': '',  # of critiques: 'released', 'boxed' (an index); '': that of the problems
    }
