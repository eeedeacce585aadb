"""What is trained on is not evaluated, whatever files the config names."""

import json

from tests.train.run.test_problems import config_of, opened, rows_of


def test_the_training_file_as_that_of_tests_gives_those_behind_the_training_problems(tmp_path):
    path, again = str(tmp_path / 'train.jsonl'), f'{tmp_path}/../{tmp_path.name}/train.jsonl'
    data = {'path': path, 'test_source': 'jsonl', 'test_path': again}
    run = opened(config_of(tmp_path, rows_of(70), **data), tmp_path)
    assert [p.id for p in run.inputs.test_problems] == [f'train/{i}' for i in range(61, 71)]


def test_a_file_that_is_blended_in_gives_other_problems_to_the_test(tmp_path):
    path = str(tmp_path / 'train.jsonl')
    (tmp_path / 'own.jsonl').write_text('\n'.join(map(json.dumps, rows_of(60))))
    data = {'path': str(tmp_path / 'own.jsonl'), 'test_source': 'jsonl', 'test_path': path}
    config = config_of(tmp_path, rows_of(70), blend=(('jsonl', path, 1.0),), **data)
    inputs = opened(config, tmp_path).inputs
    trained = [p.id for p in inputs.train_problems if p.id.startswith('1/')]
    assert trained == [f'1/train/{i}' for i in range(1, 31)]
    assert [p.id for p in inputs.test_problems] == [f'train/{i}' for i in range(31, 41)]
