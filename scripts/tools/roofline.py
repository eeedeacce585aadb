"""Prints the roofline tables of docs/scale.md.

python -m scripts.tools.roofline
python -m scripts.tools.roofline --rows=512 --length=2048 --slots=4096
"""

import runpy

from absl import app, flags

from elenchus.train.config import build, cli
from elenchus.train.config.run_settings import RunSettings
from elenchus.train.planning import roofline

if __name__ == '__main__':
    ROWS = flags.DEFINE_integer('rows', 256, 'Rows of a training batch.', 1)
    LENGTH = flags.DEFINE_integer('length', 1024, 'Tokens of a row, and of a slot.', 1)
    SLOTS = flags.DEFINE_integer('slots', 2048, 'Sequences decoded at once, on all chips.', 1)

    def main(_):
        """Prints the bounds, the batch size that is compute-bound, and iterations of GRPO."""
        config = runpy.run_path(str(build.ROOT / 'configs' / 'gsm8k.py'))['get_config']()
        gsm8k = build.build(RunSettings, config).model
        sizes = {'rows': ROWS.value, 'length': LENGTH.value, 'slots': SLOTS.value}
        print('\n'.join(roofline.table(gsm8k, **sizes)))
        for name, m in roofline.MACHINES.items():
            tokens = roofline.compute_bound_tokens(m)
            print(f'{name}: bound by computing from {tokens:,.0f} tokens a chip')
        sizes = {'rows': SLOTS.value, 'length': LENGTH.value}
        print('\n'.join(('', *roofline.overlap_table(gsm8k, **sizes))))

    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_only_flags)
