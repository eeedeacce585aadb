"""Prints the roofline table of docs/scale.md.

python -m scripts.tools.roofline
python -m scripts.tools.roofline --rows=512 --length=2048 --slots=4096
"""

from absl import app, flags

from elenchus.train.planning.roofline import MACHINES, least_tokens, table

if __name__ == '__main__':
    ROWS = flags.DEFINE_integer('rows', 256, 'Rows of a batch.')
    LENGTH = flags.DEFINE_integer('length', 1024, 'Tokens of a row, and of a slot.')
    SLOTS = flags.DEFINE_integer('slots', 2048, 'Sequences decoded at once, on all chips.')

    def main(argv):
        print('\n'.join(table(rows=ROWS.value, length=LENGTH.value, slots=SLOTS.value)))
        for name, m in MACHINES.items():
            print(f'{name}: bound by computing from {least_tokens(m):,.0f} tokens a chip')

    app.run(main)
