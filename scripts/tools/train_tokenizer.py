r"""Trains a SentencePiece tokenizer on your own text.

    python -m scripts.tools.train_tokenizer --input train.jsonl --vocab_size 2048 --output tok.model

Inputs are .txt files with one text a line, or files of problems (.jsonl, .json, .parquet), of which
the fields `question`, `answer` and `solution` are used, numbers too; separate several files by
commas. The tokenizer has a token for each header of a
conversation's turns (<question>, <attempt>, ...) and for the line break, because solution steps are
lines. Characters that the texts lack are encoded as bytes.
"""

import pathlib

from absl import app, flags

from elenchus.data.text import tokenizer, tokenizer_training
from elenchus.train.config import cli


def main(argv: list[str]) -> None:
    """Trains the tokenizer that the flags describe."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise ValueError(f'unexpected arguments {argv[1:]}; name the inputs with --input')
    if pathlib.Path(values.output).suffix != '.model':
        raise ValueError(f'--output={values.output}: the file name must end in .model')
    sizes = {'vocab_size': values.vocab_size, 'model_type': values.model_type}
    print(tokenizer_training.train_from_files(values.input, values.output, **sizes))


if __name__ == '__main__':
    flags.DEFINE_list(
        'input', None, 'Files to train on: .txt, .jsonl, .json, .parquet.', required=True
    )
    flags.DEFINE_string('output', None, 'Path of the model to write: *.model.', required=True)
    flags.DEFINE_integer(
        'vocab_size',
        None,
        'Largest number of tokens: 10 special ones, 256 bytes, each character of the texts, '
        'and learned pieces. A few thousand suit grade-school problems.',
        lower_bound=1,
        required=True,
    )
    flags.DEFINE_enum(
        'model_type',
        'bpe',
        tokenizer.MODEL_TYPES,
        'Algorithm: bpe merges frequent pairs, unigram prunes a large list of pieces, char uses '
        'single characters.',
    )
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_flags)
