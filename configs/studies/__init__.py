"""Studies: arms over seeds."""
