"""Equations that do not hold if a line is read as it stands."""

import pytest

from elenchus.data.critiques.calculator import plain_reading


@pytest.mark.parametrize(
    ('line', 'is_false'),
    [('12 * 3 = 46 homes', True), ('1.50*20=$40/hr', True), ('5 apples + 3 = 9', True),
     ('2 + 3 * 4 = 14', False), ('30 - 4/2 = 28', False), ('2+6 = 4*2', False), ('17/5 = 3', False),
     ('6+2 = 2(4)', False), ('20 * 5% = 1', False), ('10/3 = 3.33', False), ('5/0 = 0', False)],
)  # fmt: skip
def test_equations_read_as_they_stand(line, is_false):
    assert plain_reading.states_false(line) is is_false
