"""Helpers of configs: all lengths from the longest turns, and a check of the variant."""

from ml_collections import ConfigDict


def set_lengths(
    config: ConfigDict,
    *,
    question: int,
    attempt: int,
    critique: int,
    refinement: int,
    overhead: int = 1,
    multiple: int = 32,
) -> None:
    """Sets every length of a run that follows from its longest turns, in tokens.

    `question` is the longest prompt of an attempt, `overhead` what the chat template puts between
    two turns. Sums are rounded up to a `multiple`: round shapes run faster on accelerators.
    """

    def end(*turns: int) -> int:
        """Length of a conversation of these turns."""
        return -(-(sum(turns) + overhead * (len(turns) - 1)) // multiple) * multiple

    attempted, criticised = end(question, attempt), end(question, attempt, critique)
    refined = end(question, attempt, critique, refinement)
    config.sampling.update(
        attempt_tokens=attempt, critique_tokens=critique, refinement_tokens=refinement
    )
    config.sampling.score.lengths = (criticised,)
    # A prompt ends with the header of the next turn, which is empty as yet.
    prompts = {end(question, 0), end(question, attempt, 0), end(question, attempt, critique, 0)}
    config.sampling.engine.update(
        max_length=refined,
        prompt_buckets=tuple(sorted(prompts)),
        decode_cache_lengths=(),
    )
    config.model.max_length = refined
    config.train.length = refined
    config.self_talk.tokens = refined - question - overhead
    config.reinforce.update(length=attempted, critic_length=criticised)


def check_variant(name: str, arg: str, variants) -> None:
    """Raises ValueError, listing the variants, unless configs/NAME.py has the variant."""
    if arg not in variants:
        raise ValueError(f'configs/{name}.py:{arg}: no such variant; there are {list(variants)}')
