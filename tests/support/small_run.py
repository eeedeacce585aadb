"""A run that writes one of everything within a second: rows, checkpoints, models, parts, links."""

import hashlib
import json
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath

from elenchus.data.files import atomic, episode_files
from elenchus.data.records import Episode, Turn
from elenchus.model import sharding
from elenchus.train.checkpoints import saved_models
from elenchus.train.loop import LoopSettings, train_loop
from elenchus.train.run.directory import RunDirectory, StageFolder, link_tree
from elenchus.train.run.parts import StoredEpisodes
from tests.support import tiny_model

STEPS = 3
ITEMS = 6
CONFIG = json.dumps({'sampling': {'part_size': 2}})
LOOP = LoopSettings(
    rows=8,
    length=8,
    num_microbatches=1,
    log_every=1,
    checkpoint_every=1,
    keep_checkpoints=2,
    keep_finished_checkpoints=0,
    nonfinite='stop',
    compare_hosts_every=0,
)


def run(workdir: os.PathLike) -> None:
    """Runs, or continues, two stages: one trains, one samples and links the model."""
    with jax.set_mesh(sharding.make_mesh((-1, 1, 1))):
        directory = RunDirectory(epath.Path(workdir), CONFIG, ('base', 'vanilla'), part_size=2)
        directory.check_stages()
        with directory.locked():
            for name, body in (('base', train), ('vanilla', sample)):
                stage = directory.stage(name)
                if stage.read_summary() is None:
                    with stage.recorded() as summary:
                        body(stage, summary)
            atomic.write_text(directory.path / 'report.html', '<html>' + 'x' * 3000)


def train(stage: StageFolder, summary: dict) -> None:
    """Trains and saves a model; a step adds a number to each of its weights."""
    model = tiny_model.make_model(tiny_model.CONFIG, 0)

    def advance(step, state):
        state = jax.tree.map(lambda x: x + step, state)
        return state, {'loss': jnp.float32(1 / step)}, ()

    with stage.metrics() as writer:
        state, summary['last'] = train_loop(
            lambda: jax.tree.map(jnp.copy, model),
            advance,
            num_steps=STEPS,
            loop=LOOP,
            folder=stage.path,
            writer=writer,
            description='base',
            cursor=dict,
            set_cursor=lambda cursor: None,
        )
    saved_models.save_model(stage.path / 'model', state, tokenizer_fingerprint='none')


def sample(stage: StageFolder, summary: dict) -> None:
    """Writes parts of episodes, and takes over the model of the stage before."""
    parts = stage.parts('explored', range(ITEMS))
    for part in parts.missing():
        part.write(list(map(make_episode, part.items)), num_tokens=len(part.items))
    _, summary['tokens_sampled'] = parts.read()
    link_tree(stage.directory.stage('base').path / 'model', stage.path / 'model')


def make_episode(number: int) -> Episode:
    """Returns an episode of a hundred tokens."""
    rng = np.random.default_rng(number)
    tokens = tuple(rng.integers(0, 50000, 100).tolist())
    logprobs = tuple((-rng.random(100)).tolist())
    return Episode(f'p{number}', 1, (Turn('attempt', 'text', tokens, logprobs),))


def results(workdir: os.PathLike) -> dict[str, str]:
    """Returns {file: hash} of all results: rows, summaries without times, episodes, weights."""
    contents, workdir = {}, pathlib.Path(workdir)
    for path in sorted(workdir.glob('stages/*/metrics.jsonl')):
        contents[path] = path.read_bytes()
    for path in sorted(workdir.glob('stages/*/summary.json')):
        values = json.loads(path.read_text())
        contents[path] = json.dumps({k: v for k, v in values.items() if k != 'seconds'}).encode()
    for path in sorted(workdir.glob('stages/**/episodes')):
        contents[path] = b''.join(map(episode_files.to_json, StoredEpisodes(epath.Path(path))))
    for path in sorted(workdir.glob('stages/*/model/model_config.json')):
        config, fingerprint = saved_models.read_description(path.parent)
        model = saved_models.load_model(
            path.parent,
            config,
            mesh=sharding.make_mesh((-1, 1, 1)),
            tokenizer_fingerprint=fingerprint,
        )
        contents[path] = b''.join(np.asarray(x).tobytes() for x in jax.tree.leaves(model))
    return {
        str(path.relative_to(workdir)): hashlib.sha256(content).hexdigest()[:16]
        for path, content in contents.items()
    }
