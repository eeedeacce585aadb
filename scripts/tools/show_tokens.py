r"""Prints training examples token by token: the text that a player reads, and the trained tokens.

    python -m scripts.tools.show_tokens --tokenizer=models/mine/tokenizer.json --template=qwen2.5 \
        --source=gsm8k --path=DATA/gsm8k
    python -m scripts.tools.show_tokens --tokenizer=models/mine/tokenizer.json --template=qwen2.5 \
        --records=DATA/mathcritique/gsm8k.json --role=critique

Tokens are separated by |. Lines that begin with + are trained, lines that begin with - are not; a
line ends after a line break of the text, printed as \n, or where the mask changes. Of a problem the
solution is trained, as the attempt; of a critique record the turn of --role.
"""

from absl import app, flags
from etils import epath

from elenchus.data.critiques import record_files
from elenchus.data.problems import downloads, loading
from elenchus.data.text import auto_chat
from elenchus.data.text import tokenizer as tokenizers
from elenchus.train.config import cli
from elenchus.train.report import token_listing


def main(_):
    """Prints the examples that the flags select. Raises ValueError without a single source."""
    values = flags.FLAGS
    if (values.source is None) == (values.records is None):
        raise ValueError('use either --source (a problem set) or --records (a file of critiques)')
    tokenizer = tokenizers.load_tokenizer(values.tokenizer)
    folder = epath.Path(values.tokenizer).parent
    chat = auto_chat.load_chat(tokenizer, folder, template=values.template, system=values.system)
    if values.records:
        items = record_files.read(values.records)
    else:
        options = loading.load_options(data_dir=values.data_dir, path=values.path)
        with downloads.without_network('--path'):
            items = loading.load(values.source, split=values.split, **options)
    for item in items[values.first : values.first + values.count]:
        print(token_listing.list_tokens(chat, item, values.role), end='\n\n')


if __name__ == '__main__':
    sets = [source for source in loading.SOURCES if source != 'lab']
    flags.DEFINE_string('tokenizer', None, 'A tokenizer.json or tokenizer.model.', required=True)
    flags.DEFINE_enum('template', 'elenchus', list(auto_chat.template_names()), 'Chat template.')
    flags.DEFINE_string('system', 'published', "System message; published: the template's own.")
    flags.DEFINE_enum('source', None, sets, 'Problem set.')
    flags.DEFINE_string('path', '', 'Folder or file of --source; default: download.')
    flags.DEFINE_string('split', 'train', 'Split of --source.')
    flags.DEFINE_string('data_dir', '.cache/data', 'Folder for prepared data sets.')
    flags.DEFINE_string('records', None, 'File of critique records, of any supported format.')
    flags.DEFINE_enum('role', 'attempt', token_listing.SAMPLED_ROLES, 'Role of the trained turn.')
    flags.DEFINE_integer('first', 0, 'Index of the first example to print.', lower_bound=0)
    flags.DEFINE_integer('count', 2, 'Number of examples to print.', lower_bound=1)
    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_only_flags)
