"""The stages of a run: each a function (workspace, folder) -> summary."""

from elenchus.train.stages import critique, evaluate, improve, reinforce, self_talk, supervised

STAGES = {
    **supervised.STAGES,
    **critique.STAGES,
    **evaluate.STAGES,
    **self_talk.STAGES,
    **improve.STAGES,
    **reinforce.STAGES,
}
