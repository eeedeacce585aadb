"""Critiques by calculation: what a program can know about a solution of a word problem."""
