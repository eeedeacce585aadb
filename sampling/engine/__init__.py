"""Sampling engine: prompts in, completions with log-probabilities out.

engine.py            Engine and PrefixCachedEngine; start here
generator.py         Generator, the interface that they share
requests.py          Request and Completion
shapes.py            EngineSettings: the array shapes that are compiled
prefill.py           reads prompts into slots
decode.py            samples tokens in all slots, one chunk of steps at a time
sampling_methods.py  greedy, temperature, top-k, top-p and min-p sampling
prefix_cache.py      keys and values of finished sequences, reused as prefixes
prompt_lookup.py     drafts tokens from the sequence's own text
"""
