"""Workers of the benchmark for peers: Hugging Face, plain torch, TRL.

Runs in a separate environment without this project, so it imports only the standard library and,
inside functions, the peers' libraries:
    python scripts/bench/peers.py CONTENDER CASE CLOCK      (CASE is the JSON of cases.Case)

A worker builds its model, runs once (which compiles) and prints a line of JSON. Then, for every
line that it reads on stdin, it runs again for at least a second and prints another line.
"""

import json
import os
import queue
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable

Run = Callable[[], int]
"""One repetition of a case; returns the number of sampled or trained tokens."""

CLOCKS = {'wall': time.perf_counter, 'cpu': time.process_time}
MIN_SECONDS = 1.0
"""Shortest round: shorter runs are repeated, since a single one would find cold caches."""
END = 1  # id of the end token, which is never sampled: lengths are fixed


def serve(make: Callable[[str, dict], Run], facts: Callable[[], dict]) -> None:
    """Runs the worker's loop; `facts`, such as compilation counts, are added to every answer."""
    # Libraries print to stdout: point it to stderr, and keep the original for the answers.
    answers = os.fdopen(os.dup(1), 'w', buffering=1)
    os.dup2(2, 1)
    contender, case, clock = sys.argv[1], json.loads(sys.argv[2]), CLOCKS[sys.argv[3]]
    before = _peak_bytes()
    start = clock()
    run = make(contender, case)
    run()
    first = clock() - start
    print(json.dumps({'first_s': first, **facts()}), file=answers)
    for _ in sys.stdin:
        runs, start = 0, clock()
        while not runs or clock() - start < MIN_SECONDS:
            tokens = run()
            runs += 1
        seconds = (clock() - start) / runs
        answer = {'seconds': seconds, 'tokens': tokens, 'peak_bytes': _peak_bytes() - before}
        print(json.dumps(answer | facts()), file=answers)


def compilations() -> Callable[[], dict]:
    """Returns facts() of a JAX worker: its compilations from now on, and the peak memory."""
    import jax
    import jax.monitoring

    compiled = []

    def listener(event: str, duration: float, **_):
        """Records the seconds of a compilation."""
        if 'backend_compile' in event:
            compiled.append(duration)

    def facts() -> dict:
        """Number and seconds of compilations, and peak bytes of the device."""
        memory = jax.local_devices()[0].memory_stats() or {}
        return {
            'compilations': len(compiled),
            'compile_s': sum(compiled),
            'device_peak_bytes': memory.get('peak_bytes_in_use'),
        }

    jax.monitoring.register_event_duration_secs_listener(listener)
    return facts


def _peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def make_model(case: dict):
    """Makes a Llama of the case's shape with random weights."""
    import torch
    import transformers

    torch.manual_seed(0)
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    m = case['model']
    config = transformers.LlamaConfig(
        vocab_size=m['vocab_size'],
        hidden_size=m['embed_dim'],
        num_hidden_layers=m['num_layers'],
        intermediate_size=m['mlp_dim'],
        num_attention_heads=m['num_heads'],
        num_key_value_heads=m['num_kv_heads'],
        head_dim=m['head_dim'],
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=0,
    )
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    return transformers.LlamaForCausalLM(config).to(device)


def prompts_of(case: dict, rows: int, length: int, *, device):
    """Random prompts [rows, length]."""
    import torch

    high = case['model']['vocab_size']
    ids = torch.randint(2, high, (rows, length), generator=torch.Generator().manual_seed(0))
    return ids.to(device)


def generate(model, prompts, new: int, **options):
    """Samples exactly `new` tokens after each prompt, at temperature 1 without truncation."""
    import torch

    with torch.inference_mode():
        return model.generate(
            prompts,
            attention_mask=torch.ones_like(prompts),
            max_new_tokens=new,
            min_new_tokens=new,
            do_sample=True,
            top_k=0,
            top_p=1.0,
            pad_token_id=0,
            **options,
        )


def decode(case: dict, *, static: bool) -> Run:
    """Returns a run that samples a batch of equal requests."""
    model, s = make_model(case).eval(), case['shape']
    options = _use_static_cache(model) if static else {}
    prompts = prompts_of(case, s['batch'], s['prompt'], device=model.device)

    def run() -> int:
        """Samples the batch; returns the number of new tokens."""
        generate(model, prompts, s['new'], **options)
        return s['batch'] * s['new']

    return run


def _use_static_cache(model) -> dict:
    """Compiles the forward pass for a cache of fixed shape; returns the options of `generate`."""
    import torch

    model.forward = torch.compile(model.forward, dynamic=False)
    return {'cache_implementation': 'static'}


def prefill(case: dict) -> Run:
    """Returns a run that reads a batch of prompts and computes one token for each."""
    import torch

    model, s = make_model(case).eval(), case['shape']
    prompts = prompts_of(case, s['batch'], s['prompt'], device=model.device)

    def run() -> int:
        """Reads all prompts; returns the number of their tokens."""
        with torch.inference_mode():
            logits = model(prompts, use_cache=True, logits_to_keep=1).logits
        logits[:, -1].argmax(-1).tolist()
        return prompts.numel()

    return run


def ragged(case: dict) -> Run:
    """Returns a run in padded batches: each is as long as its longest request."""
    model, s = make_model(case).eval(), case['shape']
    prompts = prompts_of(case, len(s['lengths']), s['prompt'], device=model.device)

    def run() -> int:
        """Samples all batches; returns the number of requested tokens."""
        for start in range(0, len(s['lengths']), s['batch']):
            rows = slice(start, start + s['batch'])
            generate(model, prompts[rows], max(s['lengths'][rows]))
        return sum(s['lengths'])

    return run


def episode(case: dict) -> Run:
    """Returns a run of three calls, each with the whole conversation as its prompt."""
    actor, critic, s = make_model(case).eval(), make_model(case).eval(), case['shape']
    questions = prompts_of(case, s['problems'], s['prompt'], device=actor.device)

    def run() -> int:
        """Samples all three turns; returns the number of new tokens."""
        texts = generate(actor, questions, s['attempt'], num_return_sequences=s['samples'])
        texts = generate(critic, texts, s['critique'])
        generate(actor, texts, s['refinement'])
        new = s['attempt'] + s['critique'] + s['refinement']
        return s['problems'] * s['samples'] * new

    return run


def sft(case: dict) -> Run:
    """Returns a run of one step in plain torch: cross-entropy, clipping and AdamW."""
    import torch

    model, s = make_model(case).train(), case['shape']
    rows = prompts_of(case, s['batch'], s['length'], device=model.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)

    def run() -> int:
        """Trains on the batch; returns the number of its tokens."""
        optimizer.zero_grad(set_to_none=True)
        logits = model(rows, use_cache=False).logits[:, :-1]
        loss = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1).float(), rows[:, 1:].flatten()
        )
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        loss.item()
        return rows.numel()

    return run


def grpo(case: dict) -> Run:
    """Returns a run of one step of TRL's GRPO trainer.

    The trainer has no public function for one step, so it trains in a thread that waits at the
    beginning of every step. Gradient checkpointing and bfloat16 (its defaults) are off, and so is
    the KL term.
    """
    import datasets
    import trl

    model, s = make_model(case), case['shape']
    words = _tokenizer(case['model']['vocab_size'])
    ids = prompts_of(case, s['problems'], s['prompt'], device='cpu').tolist()
    go, done = queue.Queue(), queue.Queue()
    rows = s['problems'] * s['samples']
    noise = iter(range(10**9))
    trainer = trl.GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **_: [float(next(noise) % 3) for _ in completions],
        args=_grpo_settings(s, cpu=str(model.device) == 'cpu'),
        train_dataset=datasets.Dataset.from_dict({'prompt': [words.decode(row) for row in ids]}),
        processing_class=words,
        callbacks=[_one_step_at_a_time(go, done)],
    )

    def train():
        """Trains; reports the end of the trainer, also after an error."""
        try:
            trainer.train()
        finally:
            done.put(False)

    threading.Thread(target=train, daemon=True).start()

    def run() -> int:
        """Runs one step; returns the number of new tokens."""
        go.put(True)
        if not done.get():
            raise RuntimeError('the trainer has stopped; its error is above')
        return rows * s['new']

    return run


def _one_step_at_a_time(go: queue.Queue, done: queue.Queue):
    """Makes a callback that waits for `go` before every step of a trainer."""
    import transformers

    class Gate(transformers.TrainerCallback):
        """Lets the trainer run one step at a time."""

        def on_step_begin(self, args, state, control, **_):
            """Waits until a step is wanted."""
            go.get()

        def on_step_end(self, args, state, control, **_):
            """Reports the end of a step."""
            done.put(True)

    return Gate()


def _grpo_settings(s: dict, *, cpu: bool):
    import trl

    return trl.GRPOConfig(
        output_dir=tempfile.mkdtemp(prefix='bench-trl-'),
        per_device_train_batch_size=s['problems'] * s['samples'],
        num_generations=s['samples'],
        max_completion_length=s['new'],
        generation_kwargs={'min_new_tokens': s['new']},
        temperature=1.0,
        top_k=0,
        beta=0.0,
        max_steps=10**6,
        learning_rate=1e-4,
        lr_scheduler_type='constant',
        use_cpu=cpu,
        gradient_checkpointing=False,
        bf16=False,
        report_to=[],
        save_strategy='no',
        logging_strategy='no',
        disable_tqdm=True,
    )


def _tokenizer(vocab_size: int):
    """Makes a tokenizer with a word per id: TRL's prompts are text, and so keep their lengths."""
    import tokenizers
    import transformers

    words = {'<pad>': 0, '</s>': 1} | {f'w{i}': i for i in range(2, vocab_size)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token='<pad>'))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token='<pad>', eos_token='</s>', padding_side='left'
    )


WORKS: dict[tuple[str, str], Callable[[dict], Run]] = {
    ('decode', 'hf'): lambda case: decode(case, static=False),
    ('decode', 'hf static'): lambda case: decode(case, static=True),
    ('prefill', 'hf'): prefill,
    ('ragged', 'hf'): ragged,
    ('episode', 'hf'): episode,
    ('sft', 'torch'): sft,
    ('grpo', 'trl'): grpo,
}

if __name__ == '__main__':
    serve(lambda contender, case: WORKS[case['work'], contender](case), dict)
