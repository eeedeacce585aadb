"""Every field of a run, once, with a comment each. Configs start from here and change some fields:

    from elenchus.configs import defaults, derive
    def get_config(arg: str = 'default'):
        config = defaults.get_config()
        config.data.update(source='jsonl', path='problems', num_train=2000, num_test=500)
        derive.set_lengths(config, question=256, attempt=192, critique=512, refinement=192)
        return config

`--describe` of scripts.run prints any config with these comments. Lengths are in tokens. Relative
paths of what is read are looked up in the working directory, then in the project's folder.
"""

from ml_collections import ConfigDict

from elenchus.configs import derive
from elenchus.configs.sections import (
    AVERAGE,
    PREFER,
    REINFORCE,
    SELF_TALK,
    TOOLS,
    TRACKING,
    WATCHDOG,
    api,
    fit,
    lora,
    loss,
    objective,
    prompts,
    replay,
    shares,
)

STAGES = 'base actor critique critic evaluate vanilla critique_in_the_loop reinforce'

MODEL = {  # the transformer; model/config.py explains how families differ
    'vocab_size': 8192,  # rows of the embedding; at least the tokenizer's ids
    'num_layers': 16,  # transformer blocks
    'embed_dim': 768,  # width of the residual stream
    'mlp_dim': 2048,  # hidden width of the gated MLP
    'num_heads': 12,  # query heads
    'num_kv_heads': 4,  # key and value heads; fewer than num_heads is grouped-query attention
    'head_dim': 64,  # width of a head
    'max_length': 1024,  # longest sequence
    'windows': (0,),  # attention window by layer, repeated; 0: all earlier tokens
    'rope_theta': 10000.0,  # base of the rotary embedding
    'local_rope_theta': 0.0,  # the same for layers with a window; 0: rope_theta
    'rope_scaling': None,  # section: kind 'linear', 'llama3' or 'yarn', and its numbers; None: off
    'norm_epsilon': 1e-6,  # of RMSNorm
    'zero_centered_norms': False,  # norms scale by 1 + weight (Gemma)
    'post_norms': False,  # norms after attention and MLP too (Gemma)
    'qkv_bias': False,  # biases of query, key and value (Qwen 2.5)
    'qk_norm': True,  # RMSNorm of queries and keys (Qwen 3, Gemma 3)
    'query_scale_dim': 0,  # scores are divided by its square root; 0: head_dim
    'attention_soft_cap': 0.0,  # tanh cap of attention scores (Gemma 2); 0: off
    'logits_soft_cap': 0.0,  # tanh cap of logits (Gemma 2); 0: off
    'scale_embeddings': False,  # embeddings times sqrt(embed_dim) (Gemma)
    'tie_embeddings': True,  # the output head is the embedding
    'activation': 'silu',  # of the MLP: 'silu' or 'gelu'
    'dtype': 'float32',  # of activations: 'float32' or 'bfloat16'
    'param_dtype': 'float32',  # of weights as they are trained
    'attention': 'einsum',  # 'splash' (TPU kernel), 'cudnn' (GPU kernel), 'auto': as it runs on
    'remat': 'none',  # recomputed in the backward pass: 'none', 'dots' or 'full'
    'scan_layers': False,  # one compiled block for all layers: compiles faster
    'logits_chunk': 8192,  # tokens of a device whose logits exist at once in the loss
    'numerics': 'fast',  # 'canonical': equal bits in sampler and trainer, on a CPU; slow
    'remat_saved': (),  # kept under remat 'full': query, key, value, attention, residual, gate, up
    'remat_offloaded': (),  # the same, kept in the memory of the host
    'num_experts': 0,  # MLPs of width mlp_dim in a block, of which a router chooses; 0: one MLP
    'experts_per_token': 0,  # experts that compute a token; 0: without experts
    'normalise_experts': False,  # the weights of a token's experts sum to 1 (Mixtral, Qwen 3)
    'balance_coef': 0.0,  # weight of the loss that balances the use of experts; 0: only measured
    'expert_parallel': False,  # the mesh's tensor gives a device whole experts, not a slice of each
}

TOKENIZER = {  # the tokenizer and its chat template
    'kind': 'train',  # 'lab', 'file', or 'train': trained on the training problems
    'path': '',  # of kind 'file': a tokenizer.model or tokenizer.json
    'vocab_size': 8192,  # of kind 'train'
    'template': 'elenchus',  # chat template: 'elenchus', a family's, or 'auto': the model's own
    'system': 'published',  # system message; 'published': that of the template, '': none
}

DATA = {  # the problems
    'source': 'gsm8k',  # 'lab', 'gsm8k', 'gsm8k_socratic', 'math', 'svamp', 'asdiv', 'jsonl'
    'path': '',  # your folder or file; '': the public download, or the lab's generator
    'blend': (),  # more sets to train on: ((source, path, weight), ...); `source` has weight 1
    'rewrite': 'none',  # how problems are put: 'none' or 'module:function'
    'test_source': '',  # source of the test problems; '': the same
    'test_path': '',  # as path, for test_source
    'test_split': 'test',  # split of the test problems: 'test', or 'validation' to tune on
    'data_dir': '.cache/data',  # folder of prepared data sets
    'too_long': 'refuse',  # questions without room: 'refuse' to run, or 'drop' and count them
    'form': 'tail',  # of the lab's problems: 'tail', or 'digits' without facts
    'seed': 0,  # of generated problems
    'num_train': 7473,  # training problems that are read
    'num_test': 1319,  # test problems that are read
    'answer': {  # the answers of responses
        'markers': (  # what may stand before one; the last box or #### wins over phrases
            'boxed',  # \boxed{42}
            'bare_box',  # \boxed 42
            'fbox',  # \fbox{42}
            'hashes',  # #### 42
            'answer_tag',  # <answer>42</answer>
            'final_answer',  # Final Answer: 42
            'answer',  # Answer: 42
            'the_answer_is',  # The answer is 42
            'next_line',  # an answer may follow its mark or phrase on the next line
            'display',  # $$42$$ or \[42\] at the end
            'bold',  # **42** at the end
        ),
        'workers': 0,  # processes that compare by algebra; 0: one for each core
        'timeout_s': 5.0,  # processor time of one pair, in seconds
    },
}

SAMPLING = {  # how turns are sampled
    'engine': {
        'num_slots': 128,  # sequences decoded at once
        'max_length': 1024,  # of prompt and completion: the KV cache of a slot
        'chunk_steps': 16,  # decode steps between two refills of free slots
        'prompt_buckets': (256, 480, 800),  # lengths that prompts are padded to
        'prefill_batch_sizes': (8, 32),  # rows that one prefill reads, of one or several prompts
        'decode_batch_sizes': (),  # fewer slots for the last sequences; (): num_slots only
        'decode_cache_lengths': (),  # shorter caches while all are short; (): max_length only
        'prefix_cache_rows': 0,  # prompts whose keys and values stay for later turns; 0: off
        'prefix_cache_length': 0,  # tokens kept of each; 0: off
        'draft_tokens': 0,  # tokens drafted from the sequence itself (prompt lookup); 0: off
        'draft_ngram': 0,  # tokens that must match for a draft; 0: off
        'reflection': '',  # text behind which a draft is read again, to judge it
        'reflection_weight': 0.0,  # of those logits, beside the model's own; 0: off
        'cache_dtype': 'model',  # of keys and values: 'model' or 'int8'
        'quantize': 'none',  # of weights while sampling: 'none' or 'int8'
        'prefill_chunk': 0,  # tokens of a prompt read at once; 0: all, which needs more memory
        'min_prefill_use': 0.0,  # a prefill with a smaller share of prompt tokens waits; 0: never
        'tensor_shards': 0,  # devices that split the sampler's weights; 0: as the mesh's tensor
        'compile_threads': 0,  # programs compiled at once before sampling; 0: each when needed
        'dtype': 'model',  # of the sampler: model.dtype 'model', 'float32' or 'bfloat16'
    },
    'attempt_tokens': 224,  # longest attempt
    'critique_tokens': 320,  # longest critique
    'refinement_tokens': 224,  # longest refinement
    'temperature': 0.7,  # of attempts and refinements; evaluation uses it too
    'top_k': 0,  # keep the k most likely tokens; 0: all
    'top_p': 1.0,  # keep the most likely tokens up to this probability
    'min_p': 0.0,  # drop tokens below this share of the most likely one's probability
    'logits': 'none',  # function that changes the logits of a token by its place (extending.md)
    'pause': 'none',  # tokens after which a turn pauses: 'line', or a function
    'after_pause': 'stop',  # a turn that paused ends, or a function decides
    'tools': TOOLS,  # that a player may call while it writes
    'tree': {  # of a tree search: the stage `tree_search`, and evaluate.tree_problems
        'grow': 'line',  # a child is one more 'line', or a 'refinement' of the attempt
        'select': 'uct',  # 'puct', 'greedy', 'importance', 'pairwise', or a function
        'exploration': 0.3,  # constant of that rule
        'values': (('min', 1.0),),  # mean of the critic's scores or others (docs/methods.md)
        'backup': 'mean',  # value of a node: 'mean' or 'max' of those below, or a function
        'num_rollouts': 2,  # continuations of a node, for values that read them
        'expansions': 2,  # children sampled at once
        'children': 4,  # of a node, at most
        'max_depth': 24,  # lines of an attempt, or refinements of it
        'num_nodes': 32,  # of a question, at most
        'num_tokens': 0,  # sampled for a question, at most; 0: no limit
    },
    'score': {
        'rows': 64,  # critiques read at once for step scores
        'lengths': (800,),  # lengths that they are padded to
    },
    'part_size': 100,  # problems in a file of episodes; a stage resumes after the last file
}

TRAIN = {  # what all training shares
    'rows': 16,  # of a batch, over all devices
    'length': 1024,  # of a row; examples are packed into rows
    'num_microbatches': 1,  # parts of a batch whose gradients are added up
    'log_every': 10,  # steps
    'checkpoint_every': 100,  # steps
    'keep_checkpoints': 2,  # newest checkpoints that stay
    'keep_finished_checkpoints': 0,  # newest that stay after the model of a stage is saved
    'nonfinite': 'stop',  # on a NaN or infinite loss or gradient: 'stop' or 'skip' the update
    'compare_hosts_every': 100,  # steps between checks that processes agree; 0: never
}

BASE = {  # stage `base`: the model that actor and critic start from
    'checkpoint': '',  # a saved model to start from; '': random weights
    'num_documents': 7473,  # that it is trained on
    'shares': shares(attempt=1.0),  # of the lab's documents
    'fit': fit(400, 0.01, weight_decay=0.1),
    'quantize': 'none',  # the frozen base under adapters: 'none', 'int8' or 'nf4'
}

ACTOR = {  # stage `actor`: supervised fine-tuning on solutions and refinements
    'num_problems': 7473,  # training problems that give examples
    'refinements_per_problem': 1,  # (question, flawed attempt, critique -> solution)
    'critiques': 'stated',  # of refinements in text: 'stated' numbers, or of the 'calculator'
    'guided_per_problem': 0,  # (question, guide -> solution), for the guided explorers
    'level_decay': 1.0,  # of demonstrations: a level has this share of those of the level before
    'start': 'base',  # stage whose model is trained, or 'newest'
    'replay': replay(),
    'fit': fit(),
    'lora': lora(),
}

CRITIQUE = {  # stage `critique`: critique data by AutoMathCritique (arXiv 2411.16579)
    'num_problems': 4000,  # training problems that are attempted
    'num_attempts': 4,  # RG1: attempts from scratch, a problem
    'num_relocated': 1,  # RG2: right attempts resampled from a line on
    'num_inserted': 2,  # RG3: attempts with a named mistake inserted at a line
    'references': 'none',  # more right paths: 'none', 'kept' references, 'rewritten' by the actor
    'raised_temperature': 1.0,  # of RG2
    'annotator': 'oracle',  # or 'calculator', 'monte_carlo', 'model', 'file', 'api'
    'annotator_path': '',  # of 'model' a saved model, of 'file' a file of critiques
    'form': 'mixed',  # of the calculator: 'first_error', 'full_pass', 'mixed'
    'api': api(),  # the server
    'num_rollouts': 8,  # of 'monte_carlo': continuations from the end of each line
    'rollout_threshold': 0.4,  # a line is wrong if fewer of them reach the answer
    'labels': 'threshold',  # of lines by their continuations, or 'module:function'
    'filter_samples': 0,  # refinements that test a critique; 0: no filter; 10 is a good start
    'filter_successes': 0,  # of them that must be right; 3 with 10 samples
    'filter': 'refinements',  # or 'random': a control, rejects as many flawed ones of each level
    'correct_share': 0.5,  # right attempts among the data, at most
    'level_balance': 0.0,  # least ratio of flawed attempts, rarest / most frequent level
}

CRITIC = {  # stage `critic`: supervised fine-tuning on critiques
    'checkpoint': '',  # a saved model to start from, of any size; '': that of `start`
    'start': 'base',  # stage whose model is trained, or 'newest'
    'fit': fit(),
    'lora': lora(),
}

EVALUATE = {  # stage `evaluate`: accuracy and cost with and without critique
    'start': 'newest',  # stage whose model attempts, or 'newest'; a critic may attempt too
    'critic_start': 'newest',  # stage whose model criticises, or 'newest'
    'num_problems': 1319,  # test problems
    'num_attempts': 4,  # at each
    'refine': 'wrong',  # unless the critic says correct; or 'always', 'module:function'
    'num_rounds': 1,  # of critique and refinement
    'oracle': True,  # also refine what is truly wrong: an upper bound
    'uptake': {  # is the critique read? (docs/methods.md)
        'num_samples': 3,  # responses to each attempt under each condition
        'num_problems': 200,  # the first test problems, at most; 0: off
    },
    'beam': {
        'width': 0,  # beams of step-level search; 0: off
        'expansions': 4,  # samples of the next step, a beam
        'max_steps': 24,  # of a solution
        'aggregate': 'min',  # score of a beam from those of its steps: 'min', 'product', 'last'
        'num_problems': 200,  # test problems that are searched
    },
    'tree_problems': 0,  # test problems that are searched by trees (sampling.tree); 0: off
    'num_draws': 20,  # subsets of attempts that estimate a majority of k
    'num_bins': 10,  # of calibration
    'num_resamples': 1000,  # of the bootstrap
    'confidence': 0.95,  # of intervals
    'budget': 0,  # processed tokens a question for which the best way to answer is chosen; 0: off
    'measures': (),  # further figures: ('module:function', ...); docs/extending.md
    'conditions': (),  # attempts after guides: 'answer', 'solution' or 'module:function'
    'feedback': 'critique',  # a function may append a text to the critique that is refined after
    'adapt': {  # adapters trained for a question before it is attempted again, then dropped
        'make': 'none',  # problems like it that they learn: 'module:function'; 'none': off
        'when': 'always',  # which questions: 'always' or 'module:function'
        'fit': fit(8, 0.0003, name='adamw', schedule='constant'),
        'lora': lora(8, 16.0),  # of an actor without adapters; else its own go on
    },
}

IMPROVE = {  # stages of self-improvement; the stage's name is the explorer
    'num_problems': 4000,  # training problems that are explored
    'num_rounds': 3,  # of exploration and training
    'restart': 'base',  # a round trains the 'base', or the 'last' actor
    'start': '',  # stage whose actor explores first, or 'newest'; '': stage 'actor'
    'critic_start': '',  # stage whose critic it meets, or 'newest'; '': stage 'critic'
    'demonstrations': True,  # train on the actor's demonstrations too
    'explore': {
        'num_attempts': 5,  # at each problem
        'num_refinements': 5,  # of each refined attempt (critique in the loop)
        'refine': 'wrong',  # attempts with a wrong answer, or 'always'
        'num_guided_rounds': 8,  # of one guided response (guided explorers)
        'num_uniform_rounds': 32,  # of one more attempt (explorer `uniform`)
        'min_correct': 4,  # right responses after which a problem gets no more
        'token_budget': 0,  # sampled tokens a problem on average; 0: no limit
        'keep': 5,  # responses trained on, a problem, at most
        'keep_refined': 1,  # refinements kept, a wrong attempt, at most
        'critiques': 'own',  # that are followed; or 'shuffled', a control: of other questions
        'guides': 'own',  # that guided attempts see; or 'shuffled', the same control
        'teacher': 'critic',  # of `interactive`: 'critic', or 'reference': one that knows it
        'accept': 'right',  # by labels; or without labels: 'critic', or a function (extending.md)
        'player_guide': 'none',  # of `self_guided`: a function that has a player write it
        'opening': 'none',  # of `self_guided`: a function says what a response begins with
    },
    'teacher': '',  # a saved model to distil, of any size, that responds; '': the actor does
    'responses': 'sampled',  # trained on; controls: 'references' (solutions) instead, or 'none'
    'num_references': 0,  # solutions of explored problems, with 'references'
    'deduplicate': True,  # equal responses to a problem are trained on once
    'make': 'none',  # a function makes problems that are explored too
    'trains': ('response',),  # behind the question; and 'refinement' behind its critique
    'weighting': 'keep',  # of a response: 1 'keep' or 'threshold', or 'score', 'steps', 'advantage'
    'threshold': 0.5,  # least score of a response, with weighting 'threshold'
    'balance': 'none',  # 'question': the responses to one question share one weight
    'num_monitored': 500,  # responses whose perplexity and scores are reported; 0: none
    'controller': 'none',  # changes fields of a round: 'balance', or a function
    'candidates': {
        'temperatures': (0.5, 0.7, 1.0),  # that 'balance' chooses from
        'thresholds': (0.0, 0.5, 0.9),  # least score of a response
        'num_problems': 300,  # on which candidates are tried
        'num_attempts': 8,  # at each
        'target': 4,  # right responses wanted a problem
    },
    'retrain_critic': False,  # train a critic for every round's actor
    'measures': (),  # figures of all rounds: ('module:function', ...)
    'fit': fit(),
    'lora': lora(),
}


def get_config(arg: str = 'default') -> ConfigDict:
    """Returns the whole tree with its default values."""
    derive.check_variant('defaults', arg, ('default',))
    return ConfigDict(
        {
            'seed': 0,  # of weights, noise and the order of data; problems have data.seed
            'mesh': (-1, 1, 1),  # devices for (data, fsdp, tensor); -1: all that remain
            'context': 1,  # devices that split each training sequence; beside those of mesh
            'matmul_precision': 'float32',  # of float32 models; or 'tensorfloat32', 'bfloat16'
            'stages': tuple(STAGES.split()),  # in this order; a stage reads earlier ones
            'model': MODEL,
            'tokenizer': TOKENIZER,
            'prompts': prompts(),
            'data': DATA,
            'sampling': SAMPLING,
            'train': TRAIN,
            'watchdog': WATCHDOG,
            'tracking': TRACKING,
            'base': BASE,
            'actor': ACTOR,
            'critique': CRITIQUE,
            'critic': CRITIC,
            'evaluate': EVALUATE,
            'self_talk': SELF_TALK,
            'improve': IMPROVE,
            'prefer': PREFER | {'loss': loss()},
            'average': AVERAGE,
            # The objective has placeholders, which two configs must not share.
            'reinforce': REINFORCE | {'objective': objective()},
        }
    )
