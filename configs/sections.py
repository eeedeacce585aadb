"""Sections that several parts of a config hold: optimizer, fit, adapters, shares, objective.

configs/defaults.py builds the whole tree of them; it has the first comment on how to read them.
"""

from ml_collections import config_dict

WATCHDOG = {  # warnings in the log, which end nothing, and the end at a request to stop
    'slow_factor': 20.0,  # a step is slow that takes this many times the median
    'timeout_s': 1800.0,  # without progress, then the Python stacks are logged; 0: never
    'stop_within_s': 10.0,  # from SIGTERM until a process that cannot save exits; 0: it waits
    'alert': '',  # command or https://... told of the end, silent hosts and NaN; '': nobody
}

TRACKING = {  # where metrics and episodes are shown beside TensorBoard
    'libraries': (),  # 'wandb', 'trackio'; each needs the extra of its name
    'project': 'elenchus',  # project there
}


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
        'reweigh': 'none',  # factor of a token's weight: 'none' or 'module:function'
        'read': 'same',  # input tokens: the 'same' as the targets, or 'module:function'
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


def replay() -> dict:
    """Documents of the base that a fit replays, so that they are not forgotten."""
    return {
        'num_documents': 0,  # of a fixed set, of which each step reads some; 0: off
        'hidden': 'none',  # penalty of hidden states that change: 'none' or 'module:function'
        'hidden_coef': 100.0,  # weight of its mean, beside the cross-entropy
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
        'reweigh': config_dict.placeholder(str),  # 'module:function': factor of a token's weight
    }


def loss() -> dict:
    """The loss of a pair (train/preferences.py); what is not set is the published constant."""
    return {
        'kind': 'dpo',  # 'dpo', 'ipo', 'kto', 'orpo' or 'simpo'
        'beta': config_dict.placeholder(float),  # scale of scores; of 'orpo' weight of the odds
        'gamma': config_dict.placeholder(float),  # target margin, of 'dpo' and 'simpo'
        'nll_coef': config_dict.placeholder(float),  # weight of the NLL of chosen responses
        'desirable': config_dict.placeholder(float),  # weight of chosen responses, of 'kto'
        'undesirable': config_dict.placeholder(float),  # weight of rejected responses, of 'kto'
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
        'grammar': '',  # 'released', 'worked', 'boxed' (docs/methods.md); '': that of the problems
    }


PREFER = {  # stages `prefer` (actor) and `prefer_critic`: pairs of responses; docs/methods.md
    'start': '',  # stage whose actor it begins with, or 'newest'; '': stage 'actor'
    'critic_start': '',  # stage whose critic it begins with, or 'newest'; '': stage 'critic'
    'num_problems': 480,  # training problems of a round
    'num_rounds': 1,  # of sampling and training
    'restart': 'last',  # a round trains the model of the 'start', or the 'last' round's
    'explorer': 'critique_in_the_loop',  # samples the actor's groups; 'vanilla', 'tree_search'
    'num_attempts': 5,  # at each problem
    'num_critiques': 4,  # of each attempt: a group of `prefer_critic`
    'num_refinements': 3,  # of a refined attempt; of each critique, whose help they are; 0: none
    'refine': 'wrong',  # attempts with a wrong answer, or 'always'
    'pairs': 'right_wrong',  # or 'refined', 'best_worst', 'random', 'module:function'
    'keep': 4,  # pairs of a question, at most
    'prompt': 'question',  # of an actor's response: 'question', or the 'conversation' before it
    'mask_common': False,  # do not train the tokens that both responses begin with
    'length': 0,  # tokens of a row, which holds whole pairs; 0: train.length
    'fit': fit(60, 0.0003, schedule='constant'),
    'lora': lora(),
}

SELF_TALK = {  # stage `self_talk`: one model that attempts, criticises and corrects in one turn
    'num_examples': 8000,  # criticised attempts that talks start from, at most
    'num_rounds': 3,  # of refinement until the answer must be right
    'tokens': 640,  # longest talk
    'learn_mistakes': True,  # also train lines that are called wrong
    'splice': 'talk',  # how lines and remarks become a text; or 'module:function'
    'start': 'base',  # stage whose model is trained, or 'newest'
    'fit': fit(),
    'lora': lora(),
}

AVERAGE = {  # stage `average`: an actor whose weights are the mean of those of others
    'stages': ('actor',),  # whose actors are averaged
    'weights': (),  # of the stages, divided by their sum; (): equal
}

REINFORCE = {  # stages of reinforcement learning; train/rl/ explains an iteration
    'start': '',  # stage whose actor it begins with, or 'newest'; '': stage 'actor'
    'critic_start': '',  # stage whose critic it begins with, or 'newest'; '': stage 'critic'
    'one_model': False,  # reinforce_both: one model, that of critic_start, is both players
    'teacher': '',  # a saved model to distil by the KL term, of any size; '': none
    'num_steps': 100,  # iterations
    'staleness': 0,  # iterations that sampling runs ahead of the updates; 0: they alternate
    'rollout_devices': 0,  # devices of the mesh that only sample, with staleness; 0: all do both
    'token_budget': 0,  # sampled tokens after which no iteration starts; 0: no limit
    'num_problems': 32,  # of an iteration
    'num_samples': 8,  # of each problem: a group
    'num_refinements': 1,  # of each critique, where its helpfulness is rewarded
    'refine': 'always',  # critiques for that: all, or 'wrong': those that do not say correct
    'num_rollouts': 0,  # continuations of each line, to label a critic's attempts; 0: lab's truth
    'rollout_threshold': 0.4,  # a line is wrong if a smaller share of them reach the answer
    'labels': 'threshold',  # of lines by their continuations, or 'module:function'
    'critiques': 'sampled',  # that train the critic; 'true': true verdicts, imitated (RL^V)
    'refill_rounds': 0,  # extra rounds that replace groups without variance (DAPO: 2 or more)
    'replay_groups': 0,  # newest groups kept, to replace those without variance; 0: off
    'num_minibatches': 1,  # updates an epoch
    'num_epochs': 1,  # passes over an iteration's samples
    'length': 480,  # of a row: question and attempt
    'critic_length': 800,  # of a row: question, attempt and critique
    'advantage': {
        'outcome': 'grpo',  # from returns: 'grpo', 'dr_grpo', 'rloo', 'gae' or 'module:function'
        'epsilon': 1e-4,  # added to the standard deviation
        'outcome_coef': 1.0,  # weight of the outcome's advantage
        'step_coef': 0.5,  # weight of the steps' advantages
        'steps': 'normalised',  # from scores; or 'difference', 'score', 'module:function'
        'std_floor': 0.0,  # least divisor of 'normalised'; 0: off; 0.05 tames equal texts
        'unreached': 'zero',  # steps after the first wrong one: score 0 ('zero'), or none ('mask')
        'baseline': 'group',  # mean and deviation of scores: over the 'group' or by 'position'
        'shuffle_scores': False,  # a control: the scores of a group change places
    },
    'implicit': {  # scores of steps by a copy of the actor that learns from outcomes
        'beta': 0.0,  # scale of its log-ratio to the reference; 0: off, the critic scores steps
        'learning_rate': 0.0003,  # of the copy, by AdamW; else it has the actor's optimizer
    },
    'value': {  # a value model of each player, with the outcome 'gae' (PPO)
        'gamma': 1.0,  # discount of a token
        'gae_lambda': 0.95,  # 1: return less value; 0: one step ahead
        'whiten': True,  # advantages of an iteration to mean 0 and deviation 1
        'clip': 0.2,  # largest change of a value in an iteration; 0: no clip
        'learning_rate': 0.0003,  # by AdamW; else it has the player's optimizer
    },
    'turns': {
        'episode': 'attempt',  # or 'correction', 'critique', 'gated', or 'module:function'
        'attempt': 1.0,  # weight of the attempt's reward
        'refinement': 1.0,  # weight of the refinement's reward
        'progress': 0.0,  # bonus for correcting the attempt (SCoRe: 10)
        'discount': 0.0,  # of the refinement's reward in the attempt's return
        'first_phase_steps': 0,  # iterations of SCoRe's stage I
        'attempt_kl_coef': 0.0,  # of attempts in stage I
        'hint_share': 0.0,  # share of the reference's lines shown as a hint; 0: no hints
        'restart': 'none',  # samples that begin with a part of another: 'module:function'
        'correction': '',  # of 'correction' under a family's template: instruction; '': SCoRe's
    },
    'rewards': {
        'correct': 1.0,  # of a right answer
        'format': 0.0,  # of the required form
        'length': 0.0,  # penalty of long turns
        'steps': 0.0,  # mean score of the steps
        'verdict': 0.0,  # the critic's final score
        'functions': (),  # your own: (('module:function', weight), ...); docs/extending.md
    },
    'critic_rewards': {
        'verdict': 1.0,  # of a right verdict
        'verdict_of': 'answer',  # what it judges: the 'answer', or all 'steps' (lab)
        'located': 0.0,  # of the right first error (lab)
        'helpful': 1.0,  # (corrected - broken) / refinements
        'format': 0.0,  # of a critique that can be parsed
        'length': 0.0,  # penalty of long critiques
        'functions': (),  # your own: (('module:function', weight), ...)
    },
    'overlong_tokens': 32,  # before a turn's limit, where the penalty of length starts
    'mask_truncated': False,  # turns cut off at their limit are not trained (DAPO, TRL)
    'importance_cap': 0.0,  # cap of the trainer / sampler ratio on tokens; 0: no correction
    'drop_zero_advantage_rows': True,  # leave rows without advantages out of the update
    'samples_per_row': 4,  # of a group, after one copy of their prompt
    'checkpoint_every': 20,  # iterations
    'optimizer': optimizer(0.0003, schedule='constant'),
    'lora': lora(),
}


TOOLS = {
    'use': (),  # 'calculator', 'python', or 'module:function'; (): none (docs/calling_tools.md)
    'form': 'fenced',  # of calls: 'equation', 'annotation', 'fenced', 'tags' or 'message'
    'roles': ('attempt', 'refinement'),  # whose turns may call
    'max_calls': 4,  # that are answered in a turn
    'timeout_s': 2.0,  # processor time of a program; ten times as much on the clock
    'memory_mib': 512,  # of a program
    'output_chars': 1000,  # of an answer; more is refused
    'modules': ('sympy',),  # that programs may import besides the standard library's
    'isolation': 'namespaces',  # 'filter' where a container allows no namespaces (security.md)
    'workers': 1,  # programs that run at once
}
