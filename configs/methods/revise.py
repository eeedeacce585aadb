"""ReVISE: preference learning of self-verification, then of correction, with one special token.

After its answer the model either ends or writes [refine] and answers again. Pairs teach first to
end after right answers only, then to correct wrong ones.

Formula: DPO + NLL of the chosen; y right: (y, y [refine]); y wrong: (y [refine] y*, y); the tokens
before [refine] are not trained.
Source: arXiv 2502.14565; make_dataset.py and dpo_trainer.py of github.com/seunghyukoh/ReVISE.
Differs: both stages in one; [refine] is the header of a refinement, y* the right refinement after a
critique. The sampler bans headers, so decoding does not use what was learnt; no confidence voting.
"""

import dataclasses

from elenchus.configs import method


def extend(episode, tokens):
    """The attempt of an episode with more tokens in the place of its end token."""
    turns = [turn for turn in episode.turns if turn.role in ('question', 'attempt')]
    longer = (*turns[-1].tokens[:-1], *tokens)
    last = dataclasses.replace(turns[-1], tokens=longer, logprobs=())
    return dataclasses.replace(episode, turns=(*turns[:-1], last))


def verify_and_correct(groups):
    """The pairs of both stages, of attempts that were not cut off."""
    pairs, episodes = [], [episode for group in groups for episode in group]
    right = [e.turns[-1] for e in episodes if e.turns[-1].facts.correct]
    headers = {e.turns[-1].header for e in episodes if e.turns[-1].role == 'refinement'}
    if not right or not headers:
        return []
    ends = [turn.tokens[-1:] for turn in right]
    end, refine = max(ends, key=ends.count), min(headers)
    for episode in episodes:
        last, attempt = episode.turns[-1], episode.attempt
        if last.role == 'attempt' and last.facts.correct and last.tokens[-1:] == end:
            pairs.append((episode, extend(episode, refine), 0.0))
        is_whole = attempt.tokens[-1:] == end and not attempt.facts.correct
        if last.role == 'refinement' and last.facts.correct and is_whole:
            corrected = extend(episode, (*refine, *last.tokens))
            pairs.append((corrected, extend(episode, end), 0.0))
    return pairs


CHANGES = {
    'prefer.pairs': 'elenchus.configs.methods.revise:verify_and_correct',
    'prefer.mask_common': True,
    'prefer.loss.nll_coef': 1.0,
}
get_config = method.of(CHANGES, stages=method.PREFER)
