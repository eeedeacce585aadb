"""Settings of the problems of a run: where they come from, and how answers are read."""

import dataclasses
from typing import Annotated, Literal

from elenchus.data.grading.judge import AnswerSettings
from elenchus.data.lab.forms import FormName
from elenchus.model.ranges import Range, Seed, checked
from elenchus.sampling.slots import Slot
from elenchus.train.config.evaluate_settings import ProblemCount

REWRITES = Slot('(problem) -> problem', {'none': lambda problem: problem})
TextSource = Literal['gsm8k', 'gsm8k_socratic', 'math', 'svamp', 'asdiv', 'jsonl']


@dataclasses.dataclass(frozen=True)
@checked('data')
class DataSettings:
    """The problems of a run."""

    source: Literal['lab', TextSource]
    path: str  # your folder or file; '' for the public download or the lab's generator
    # Further sets of training problems: source, path, and weight against `source`, which has 1.
    blend: tuple[tuple[TextSource, str, Annotated[float, Range(1e-6, 1e6)]], ...]
    rewrite: Annotated[str, REWRITES]  # function that rewrites each problem; 'none': none
    test_source: Literal['', TextSource]  # of the test problems; '': the same source
    test_path: str  # as path, for test_source
    test_split: Literal['test', 'validation']  # of the test problems; 'validation' is to tune on
    data_dir: str  # folder of prepared data sets, in the working directory
    too_long: Literal['refuse', 'drop']  # questions for which there is no room
    form: FormName  # of the lab's problems
    seed: Seed  # of generated problems
    num_train: ProblemCount
    num_test: ProblemCount
    answer: AnswerSettings

    def __post_init__(self):
        if self.blend and self.source == 'lab':
            raise ValueError(
                f"data.blend={self.blend} must be () with data.source='lab', whose words and judge "
                'know no other problems'
            )
        if self.test_source and self.source == 'lab':
            raise ValueError(
                f"data.test_source={self.test_source!r} must be '' with data.source='lab', whose "
                'words and judge know no other problems'
            )
        if self.test_path and not self.test_source:
            raise ValueError(f'data.test_path={self.test_path!r} needs data.test_source')
