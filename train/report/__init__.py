"""Reports: the page and plots of a run, the table of a study, listings of tokens."""
