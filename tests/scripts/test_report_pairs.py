"""The report's table of stages that trained on pairs."""

from elenchus.train.report import html_pairs


def figures(pairs, accuracy):
    before = {'margin': 0.0, 'accuracy': 0.5, 'chosen_logprob': -9.0, 'rejected_logprob': -8.0}
    after = {'margin': 1.25, 'accuracy': accuracy, 'chosen_logprob': -7.5, 'rejected_logprob': -9.5}
    return {'pairs': pairs, 'preference': {'before': before, 'after': after}}


def test_every_round_has_a_row_before_and_after():
    stages = {
        '04-prefer': {'rounds': [figures(12, 0.75), figures(1234, 1.0)]},
        '05-prefer_critic': {'rounds': [figures(3, 0.625)]},
        '06-vanilla': {'rounds': [{'kept': 3}]},
        '07-evaluate': {},
    }
    page = html_pairs.pairs_table(stages)
    assert page.count('<tr>') == 1 + 3
    for cell in (
        '04-prefer, round 2',
        '1,234',
        '50.00 to 100.00',
        '0.00 to 1.25',
        '-9.00 to -7.50',
    ):
        assert f'<td>{cell}</td>' in page
    assert '<td>05-prefer_critic</td>' in page and '62.50' in page and 'vanilla' not in page


def test_without_such_a_stage_there_is_no_table():
    assert html_pairs.pairs_table({'04-evaluate': {}}) == ''
