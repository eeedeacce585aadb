"""How weights move: the objective, the step, state, metrics and settings."""
