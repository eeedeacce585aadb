"""The launchers: one state machine, one file a cloud; they need the standard library alone."""
