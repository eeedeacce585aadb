"""Prints the tables of docs/hardware.md: the memory of each shipped config on each machine.

python -m scripts.tools.hardware_table
python -m scripts.tools.hardware_table --machines=v5e-16,8xh200
"""

from absl import app, flags

from elenchus.train.config import cli
from elenchus.train.planning import hardware_table

if __name__ == '__main__':
    MACHINES = flags.DEFINE_list(
        'machines', list(hardware_table.MACHINES), 'Machines, such as v5e-256 or 8xh100.'
    )

    def main(_):
        """Prints the tables."""
        print('\n'.join(hardware_table.table(topologies=MACHINES.value)))

    with cli.one_line_errors():
        app.run(main, flags_parser=cli.parse_only_flags)
