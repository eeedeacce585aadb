"""One stage a script, the runner that walks them, and the report."""
