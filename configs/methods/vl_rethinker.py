"""VL-Rethinker: samples that still teach are replayed, and responses are made to think again.

As a model gets better, ever more groups have equal rewards and no advantages. Their place is taken
by samples of earlier iterations. And since reinforcement alone brings little reflection, a trigger
is put behind finished responses; those that end right are trained in their place.

Formula: p(replay) ~ |A|; y = y1 + trigger + y2 for a share 0.65 of responses, two a problem at
most, kept iff y is right.
Source: arXiv 2504.08837; openrlhf/trainer/ppo_utils (replay_buffer.py, experience_maker.py) of
github.com/TIGER-AI-Lab/VL-Rethinker, dd2c17d.
Differs: text without images; whole groups are replayed, only where others have no variance; the
trigger is read but not trained, one of theirs, behind whole responses; the model has learnt
self-talk, and on the lab the trigger is the beginning of a remark on the answer.
"""

from elenchus.configs import method

SHARE, MOST = 0.65, 2


def rethink(group, rng, *, trigger='\n\nWait, does it seem right?'):
    """Puts the trigger behind a share of the responses that have an answer."""
    chosen = [e.attempt.facts.answer is not None and rng.random() < SHARE for e in group]
    return [
        (i, len(episode.attempt.tokens), trigger) if chosen[i] and sum(chosen[:i]) < MOST else None
        for i, episode in enumerate(group)
    ]


def lab_rethink(group, rng):
    """The same in the lab's words."""
    return rethink(group, rng, trigger='\n answer :')


rethink.trains_beginning = lab_rethink.trains_beginning = True
rethink.keeps_right = lab_rethink.keeps_right = True
HERE = 'elenchus.configs.methods.vl_rethinker'
CHANGES = method.TALKS | {
    'reinforce.start': 'self_talk',
    'reinforce.turns.restart': f'{HERE}:rethink',
    'reinforce.replay_groups': lambda c: 2 * c.reinforce.num_problems,
    'reinforce.advantage.step_coef': 0.0,
}
LAB = {'reinforce.turns.restart': f'{HERE}:lab_rethink'}
STAGES = (*method.CRITIC, 'self_talk', 'reinforce', 'evaluate')
get_config = method.of(CHANGES, stages=STAGES, lab_changes=LAB)
