"""Sampling engine: prompts in, completions with log-probabilities out.

engine.py                Engine; start here
prefix_cached_engine.py  an engine that keeps a prefix cache for each model
generator.py             Generator, the interface that they share
requests.py              Request and Completion
shapes.py                EngineSettings: the array shapes that are compiled
weights.py               the sampler's mesh, and its copy of the weights
refill.py                decides which requests enter which slots, and packs their prompts
prefill.py               reads prompts into slots
decode.py                samples tokens in all slots, one chunk of steps at a time
sampling_methods.py      greedy, temperature, top-k, top-p and min-p sampling
request_methods.py       several methods in one service, one for each request
token_rules.py           a user's functions of logits and of pauses
prefix_cache.py          keys and values of finished sequences, reused as prefixes
prompt_lookup.py         drafts tokens from the sequence's own text
reflection.py            reads drafts again behind a text, and samples from both logits
calls.py                 runs programs, or only compiles them, for `Engine.warm_up`
compile_ahead.py         compiles the programs of an engine side by side
work.py                  counts what an engine has done
"""
