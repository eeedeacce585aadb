"""Tree search in the stage `evaluate`: one more row, which changes no other, and resumes."""

import pytest

from tests.train.stages.test_evaluate import Evaluation, parts


@pytest.mark.slow
def test_a_tree_search_is_one_more_row_and_the_others_are_as_before(tmp_path):
    for name in ('off', 'on'):
        (tmp_path / name).mkdir()
    before = Evaluation(tmp_path / 'off').evaluate(tmp_path / 'off')
    searching = Evaluation(tmp_path / 'on', evaluate__tree_problems=4)
    summary = searching.evaluate(tmp_path / 'on')
    point = summary['curves'].pop('tree search')[0]
    assert summary['curves'] == before['curves'] and summary['accuracy'] == before['accuracy']
    assert point['questions'] == 4 and set(point['calls']) == {'attempt', 'critique'}
    assert summary['equal_tokens'].pop('tree search@1')['questions'] == 4
    assert summary['equal_tokens'] == before['equal_tokens']
    names = set(parts(tmp_path / 'on')) - set(parts(tmp_path / 'off'))
    assert [str(path) for path in names] == ['tree/episodes/part-00000.array_record']
    assert summary['tokens_sampled'] == searching.tokens > before['tokens_sampled']
    again = Evaluation(tmp_path / 'on', evaluate__tree_problems=4)
    assert again.evaluate(tmp_path / 'on')['curves']['tree search'] == [point] and not again.tokens
