"""One stage of a run; the stages it reads must be complete in the same work directory.

python -m scripts.stage --config configs/lab.py --workdir runs/lab --stage actor
"""

from elenchus.train.config import build, cli
from elenchus.train.stages import STAGES

if __name__ == '__main__':
    cli.define_flags(stages=STAGES)
    build.run_main(lambda argv: cli.run_stage(STAGES))
