"""Tables, arms and sizes of the studies of methods (methods.py); not a study itself."""

from typing import NamedTuple

from elenchus.configs import method
from elenchus.configs.studies.shared import column

TOKENS = 80_000
"""Sampled tokens of an arm of reinforcement; an attempt has 60, a critique 100 on average."""
SEEDS = (0, 1, 2)
HARD = ('6', '7', '8')
CONTROL = 'elenchus.configs.studies.controls'


class Effect(NamedTuple):
    """What is measured of a method: its arm less the control's, in a column of the table."""

    method: str  # file in configs/methods, and name of its arm
    control: str  # name in CONTROLS
    column: str


# At most five a table: their p-values are adjusted together. A method more is a line more.
TABLES = {
    'actor': (
        Effect('empo', 'random reward', 'attempt, %'),
        Effect('guide_grpo', 'grpo', 'hard attempt, %'),
        Effect('efficiency', 'grpo', 'tokens an attempt'),
        Effect('rest_grpo', 'rest_grpo, all groups', 'attempt, %'),
        Effect('qwen2p5_math', 'grpo', 'attempt, %'),
    ),
    'correction': (
        Effect('score', 'score, no bonus', 'second - first'),
        Effect('score', 'score, no stage I', 'second - first'),
        Effect('reform_pbso', 'terminal reward alone', 'second, %'),
    ),
    'feedback': (
        Effect('critique_grpo', 'grpo', 'refined, %'),
        Effect('think_tuning', 'grpo', 'attempt, %'),
        Effect('think_tuning', 'think_tuning, gated', 'refined, %'),
        Effect('self_debug', 'self_debug, verdicts alone', 'refined, %'),
        Effect('spiral_rae', 'grpo of both', 'refined, %'),
    ),
    'critic': (
        Effect('critique_rl', 'critique_rl, verdicts alone', 'refined, %'),
        Effect('critique_rl', 'helpfulness alone', 'wrong found and right passed, %'),
        Effect('ref_critic', 'verdicts alone', 'refined, %'),
        Effect('deepcritic', 'verdicts alone', 'processbench F1'),
    ),
    'credit': (
        Effect('dr_saf', 'grpo', 'attempt, %'),
        Effect('prime', 'prime, outcomes alone', 'attempt, %'),
        Effect('thinklite_vl', 'grpo, refilled', 'attempt, %'),
        Effect('ppo', 'ppo, no values', 'attempt, %'),
    ),
    'one_model': (Effect('rise', 'rise, no verdicts', 'wrong found and right passed, %'),),
    'critiques': (Effect('cft', 'imitation', 'attempt, %'),),
    'pairs': (
        Effect('super_correct', 'super_correct, random pairs', 'attempt, %'),
        Effect('scl', 'scl, random pairs', 'attempt, %'),
        Effect('evolve', 'evolve, random pairs', 'attempt, %'),
        Effect('med_refl', 'med_refl, random pairs', 'refined, %'),
    ),
    'critic_pairs': (
        Effect('agentic_lu', 'agentic_lu, random critiques', 'refined, %'),
        Effect('multi_critique', 'multi_critique, random sides', 'refined, %'),
    ),
    'data': (
        Effect('persona_math', 'persona_math, other problems', 'attempt, %'),
        Effect('trace_codegen', 'trace_codegen, right alone', 'attempt, %'),
        Effect('mc_cot', 'mc_cot, random responses', 'attempt, %'),
        Effect('self_evolution', 'self_evolution, random verdicts', 'attempt, %'),
    ),
    'fit': (
        Effect('masked_thought', 'plain fit', 'attempt, %'),
        Effect('fun_reason', 'plain fit', 'attempt, %'),
        Effect('light_if', 'light_if, all tokens', 'attempt, %'),
    ),
    'labels': (
        Effect('hrm', 'hrm, each line by itself', 'processbench F1'),
        Effect('glore', 'glore, a threshold', 'processbench F1'),
    ),
    'segments': (
        Effect('spoc', 'talks, outcomes alone', 'attempt, %'),
        Effect('satori', 'talks, outcomes alone', 'attempt, %'),
        Effect('vl_rethinker', 'talks, outcomes alone', 'attempt, %'),
    ),
    'improve': (
        Effect('rl_incorrect', 'right responses alone', 'attempt, %'),
        Effect('b_star', 'fixed knobs', 'attempt, %'),
        Effect('still_2', 'imitation alone', 'attempt, %'),
    ),
    'talk': (Effect('s3c_math', 'mistakes learnt', 'talk, %'),),
    'cycle': (Effect('cycle', 'no refinements', 'gain'),),
    'rounds': (
        Effect('psr', 'three rounds for all', 'last round, %'),
        Effect('psr', 'three rounds for all', 'tokens, all rounds'),
        Effect('heart', 'heart, no phrases', 'last round, %'),
    ),
    'gate': (
        Effect('magicore', 'magicore, all refined', 'vote of all rounds, %'),
        Effect('magicore', 'magicore, all refined', 'tokens, all rounds'),
    ),
    'search': (Effect('mc_nest', 'mc_nest, random scores', 'tree search, %'),),
    'splice': (Effect('agent_r', 'wrong lines read alone', 'talk, %'),),
    'decoding': (
        Effect('id_sampling', 'as sampled', 'attempt, %'),
        Effect('srgen', 'as sampled', 'attempt, %'),
    ),
    'reflection': (
        Effect('first_try', 'talk as sampled', 'talk, %'),
        Effect('first_try', 'talk as sampled', 'tokens a talk'),
        Effect('cyclic_reflex', 'talk as sampled', 'talk, %'),
    ),
}
NOT_MEASURED = {
    'masa': "the lab has no words for its prediction: its rewards are GRPO's",
    'crossthink': 'its templates leave the problems of the lab as they are',
    'tool_star': "the lab has no words for tags and one tool, CoSC's: its reward is the answer's",
    'refine_traces': "the lab's words have no tags and no confidence: its advantages are GRPO's",
    'rl_v': 'without its verdicts no critic is trained, which is another kind of run',
    'regenesis': 'its actor would first learn to read outlines, in a stage that all arms share',
    'gere': 'what a model forgets is not among the figures of the lab',
    'reflective_verification': 'its model has more positions than that of the shared stages',
}
"""Method -> why it has no arm."""

ACTOR = ('base', 'actor')
SHARED = {
    'cycle': ('base',),
    'fit': ('base',),
    'one_model': (*ACTOR, 'critique'),
    'segments': (*method.CRITIC, 'self_talk'),
    **dict.fromkeys(('critiques', 'labels', 'decoding', 'reflection'), ACTOR),
}
"""Stages that the arms of a table share, where not all of method.CRITIC."""
RUNS = {'segments': method.TALKS | {'reinforce.start': 'self_talk'}}
"""Changes of a table's whole run, where its arms need them."""
WITH_SUPERVISED = ('actor', 'feedback', 'critic', 'improve', 'credit', 'pairs', 'data')
"""Tables with the arm `supervised`: those whose arms begin with its players."""
TALK = ('critique', 'self_talk')
STAGES = {
    'qwen2p5_math': ('reinforce', 'evaluate'),
    's3c_math': ('self_talk',),
    'agent_r': ('self_talk',),
    'first_try': TALK,
    'cyclic_reflex': TALK,
    'rise': (*method.CRITIC, 'reinforce_both'),
    **dict.fromkeys(('spoc', 'satori', 'vl_rethinker'), ('reinforce',)),
}
"""Stages of a method's arm after the shared ones, where not those of its file."""

# Controls: stages or method that an arm is like, and what differs.
CONTROLS = {
    'supervised': (('evaluate',), {}),
    'grpo': (('reinforce', 'evaluate'), {'reinforce.advantage.step_coef': 0.0}),
    'random reward': (
        'empo',
        {'reinforce.rewards.functions': ((f'{CONTROL}:random_reward', 1.0),)},
    ),
    'score, no bonus': ('score', {'reinforce.turns.progress': 0.0}),
    'score, no stage I': ('score', {'reinforce.turns.first_phase_steps': 0}),
    'terminal reward alone': ('reform_pbso', {'reinforce.turns.attempt': 0.0}),
    'think_tuning, gated': ('think_tuning', {'reinforce.turns.episode': 'gated'}),
    'self_debug, verdicts alone': ('self_debug', {'reinforce.critic_rewards.helpful': 0.0}),
    'grpo of both': ('spiral_rae', {'reinforce.advantage.outcome': 'grpo'}),
    'rest_grpo, all groups': ('rest_grpo', {'reinforce.advantage.outcome': 'grpo'}),
    'grpo, refilled': (
        ('reinforce', 'evaluate'),
        {'reinforce.advantage.step_coef': 0.0, 'reinforce.refill_rounds': 2},
    ),
    'critique_rl, verdicts alone': ('critique_rl', {'reinforce.critic_rewards.helpful': 0.0}),
    'verdicts alone': (('reinforce_critic',), {'reinforce.critic_rewards.helpful': 0.0}),
    'helpfulness alone': ('critique_rl', {'reinforce.critic_rewards.verdict': 0.0}),
    'right responses alone': (
        'rl_incorrect',
        {'improve.weighting': 'keep', 'improve.explore.token_budget': 820},
    ),
    'fixed knobs': (
        'b_star',
        {'improve.controller': 'none', 'improve.explore.token_budget': 950},
    ),
    'imitation alone': ('still_2', {'improve.responses': 'none'}),
    'mistakes learnt': ('s3c_math', {'self_talk.learn_mistakes': True}),
    'no refinements': ('cycle', {'actor.refinements_per_problem': 0}),
    'three rounds for all': ('psr', {'evaluate.refine': 'wrong'}),
    'heart, no phrases': ('heart', {'evaluate.feedback': 'critique'}),
    'magicore, all refined': ('magicore', {'evaluate.refine': 'always'}),
    'mc_nest, random scores': (
        'mc_nest',
        {'sampling.tree.values': ((f'{CONTROL}:random_value', 1.0),)},
    ),
    'wrong lines read alone': ('agent_r', {'self_talk.splice': 'talk'}),
    'prime, outcomes alone': (
        'prime',
        {'reinforce.implicit.beta': 0.0, 'reinforce.advantage.step_coef': 0.0},
    ),
    'rise, no verdicts': ('rise', {'reinforce.critic_rewards.verdict': 0.0}),
    'imitation': ('cft', {'evaluate.start': 'actor'}),
    **{
        f'{like}, random pairs': (like, {'prefer.pairs': rule})
        for like, rule in (
            ('super_correct', 'random'),
            ('scl', 'random'),
            ('evolve', f'{CONTROL}:random_of_prompt'),
            ('med_refl', f'{CONTROL}:random_refinements'),
        )
    },
    'agentic_lu, random critiques': (
        'agentic_lu',
        {'prefer.pairs': f'{CONTROL}:random_critiques'},
    ),
    'multi_critique, random sides': (
        'multi_critique',
        {'prefer.pairs': f'{CONTROL}:random_sides'},
    ),
    'persona_math, other problems': (
        'persona_math',
        {'improve.make': 'none', 'improve.num_problems': lambda c: min(120, c.data.num_train)},
    ),
    'trace_codegen, right alone': ('trace_codegen', {'improve.weighting': 'keep'}),
    'mc_cot, random responses': ('mc_cot', {'improve.explore.accept': f'{CONTROL}:random_half'}),
    'self_evolution, random verdicts': (
        'self_evolution',
        {'improve.explore.accept': f'{CONTROL}:random_verdicts'},
    ),
    'ppo, no values': ('ppo', {'reinforce.advantage.outcome': 'grpo'}),
    'light_if, all tokens': ('light_if', {'actor.fit.reweigh': 'none'}),
    'plain fit': ('masked_thought', {'actor.fit.read': 'same'}),
    'hrm, each line by itself': ('hrm', {'critique.labels': 'threshold'}),
    'glore, a threshold': ('glore', {'critique.labels': 'threshold'}),
    'talks, outcomes alone': (
        ('reinforce',),
        {'reinforce.start': 'self_talk', 'reinforce.advantage.step_coef': 0.0},
    ),
    'as sampled': (('critique', 'critic', 'evaluate'), {}),
    'talk as sampled': (TALK, {}),
}

NO_CRITIC = {'critique.num_problems': 10, 'critic.fit.num_steps': 0}
"""Sizes of arms whose critic is not looked at."""
# Sizes at which an arm samples about TOKENS; each control has those of the method that it is like.
SIZES = {
    'score': {'reinforce.turns.first_phase_steps': 4},
    'rl_incorrect': {'improve.num_problems': 100},
    'b_star': {'improve.num_problems': 40, 'improve.candidates.num_problems': 10},
    'still_2': {'improve.num_problems': 45, 'improve.explore.token_budget': 600},
    'rest_grpo': {'evaluate.tree_problems': 0},
    'mc_nest': {'evaluate.tree_problems': 150},
    'vl_rethinker': {'reinforce.replay_groups': 16},
    'agentic_lu': {'prefer.num_problems': 40},
    'multi_critique': {'prefer.num_problems': 100},
    'persona_math': {'improve.num_problems': 60},
    **dict.fromkeys(('trace_codegen', 'mc_cot'), {'improve.num_problems': 100}),
    'self_evolution': {'improve.num_problems': 50},
    'cft': {'critique.num_problems': 1000, 'critic.fit.num_steps': 240},  # as much as the actor
    **dict.fromkeys(('light_if', 'masked_thought', 'fun_reason'), NO_CRITIC),
}

ATTEMPT = ('last', 'accuracy', 'attempt', 'all', 0)
REFINED = ('last', 'accuracy', 'refined', 'all', 0)
CRITIC = ('last', 'critic')
COST = column('thousand tokens', ('training', 'tokens_sampled'), scale=0.001)
LOOP = (
    column('attempt, %', ATTEMPT),
    column('hard attempt, %', ('last', 'accuracy', 'attempt', HARD, 0)),
    column('refined, %', REFINED),
    column('gain', REFINED, minus=ATTEMPT),
    column('wrong found and right passed, %', (*CRITIC, ('found', 'passed'))),
    column('processbench F1', (*CRITIC, 'processbench_f1')),
    column('tokens an attempt', ('last', 'tokens_per_answer', 'attempt'), scale=1.0),
    COST,
)
ALONE = ('attempt, %', 'hard attempt, %', 'tokens an attempt')
"""Columns of LOOP that need no critic."""
FIRST, SECOND = (
    ('reinforce', 'rows', (-1, -2, -3), f'reward/{role}/correct')
    for role in ('attempt', 'refinement')
)
"""Of the questions that the last iterations sampled, which were not trained on before."""
ROUNDS, ALL_ROUNDS = (('last', 'curves', f'sequential rounds ({n})', -1) for n in ('last', 'all'))
TALKS = (
    column('talk, %', ('last', 'accuracy', 'self-talk', 'all', 0)),
    column('corrections', ('last', 'corrections'), scale=1.0),
    column('tokens a talk', ('last', 'tokens_per_answer', 'self-talk'), scale=1.0),
    COST,
)
COLUMNS = {
    **dict.fromkeys(
        ('rounds', 'gate'),
        (
            column('attempt, %', ATTEMPT),
            column('refined, %', REFINED),
            column('last round, %', (*ROUNDS, 'accuracy', 'all', 0)),
            column('vote of all rounds, %', (*ALL_ROUNDS, 'accuracy', 'all', 0)),
            column('tokens, all rounds', (*ROUNDS, 'tokens', 'all'), scale=1.0),
        ),
    ),
    'search': (
        column('attempt, %', ATTEMPT),
        column('refined, %', REFINED),
        column('tree search, %', ('last', 'curves', 'tree search', 0, 'accuracy', 'all', 0)),
        column('tokens', ('last', 'curves', 'tree search', 0, 'tokens', 'all'), scale=1.0),
    ),
    'correction': (
        *LOOP[:-1],
        column('second, %', SECOND),
        column('second - first', SECOND, minus=FIRST),
        COST,
    ),
    **dict.fromkeys(('talk', 'splice', 'reflection'), TALKS),
    'segments': (*(c for c in LOOP if c['name'] in ALONE), COST),
}
"""Columns of a table, where not those of LOOP."""
