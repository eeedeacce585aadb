"""Fields that a controller may change in a round of self-improvement, and their change."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from elenchus.sampling import user_functions
from elenchus.sampling.exploration.round_changes import CONTROLLERS, FIELD, RoundContext
from elenchus.train.config import field_changes

OF_THE_STAGE = (
    *('num_rounds', 'controller', 'candidates', 'start', 'critic_start', 'restart'),
    *('demonstrations', 'retrain_critic', 'lora', 'measures'),
)
"""Fields of `improve` that concern all rounds together, so that no round may change them."""
OF_SAMPLING = tuple(f'sampling.{name}' for name in ('temperature', 'top_k', 'top_p', 'min_p'))
"""Fields of `sampling` that a round may change, for exploration and not for its evaluation."""


def may_change(path: str) -> bool:
    """Returns whether a controller may change a field, by its path."""
    section, name, *_ = path.split('.')
    return path in OF_SAMPLING or (section == 'improve' and name not in OF_THE_STAGE)


def changed_by_controller(
    sections: Mapping[str, Any],
    rounds: Sequence[Mapping],
    *,
    number: int,
    candidates: Sequence[Mapping],
    num_problems: int,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns what the controller changes in a round, and the sections of settings with it.

    `sections` are the settings by name, with `improve` and `sampling`; `rounds` the summaries of
    the rounds before; `num_problems` how many problems there are to explore. Raises ValueError,
    naming the controller, for a field that may not change, or a value that it may not have.
    """
    name = sections['improve'].controller
    known = {
        path: leaf.value
        for section, settings in sections.items()
        for path, leaf in field_changes.leaves(settings, section)
        if may_change(path)
    }
    function = CONTROLLERS.find(name, FIELD)
    # A function gets copies of plain JSON, whether the rounds were just run or are read again.
    plain = json.loads(json.dumps([rounds, known, candidates]))
    changes = function(plain[0], RoundContext(number, *plain[1:]))
    if not isinstance(changes, dict) or not all(isinstance(path, str) for path in changes):
        user_functions.refuse(function, changes, 'a dict {field: value}, such as {}', field=FIELD)
    changes = {path: _plain(value) for path, value in changes.items()}
    try:
        changed = field_changes.changed(sections, changes, list(known))
        if changed['improve'].num_problems > num_problems:
            raise ValueError(
                f'improve.num_problems={changed["improve"].num_problems} must be at most '
                f'{num_problems}, the number of training problems; nearest: {num_problems}'
            )
    except ValueError as error:
        path, line = user_functions.location(getattr(function, 'function', function))
        raise ValueError(f'{FIELD}={name!r} ({path}:{line}): {error}') from None
    return changes, changed


def _plain(value: Any) -> Any:
    """Returns a number of NumPy as one of Python, which JSON and the settings know."""
    return value.item() if isinstance(value, np.generic) else value
