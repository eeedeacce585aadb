"""Critiques: grammars, the oracle that writes them, mistakes, and files of records."""
