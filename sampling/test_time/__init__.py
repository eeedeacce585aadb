"""Critique at test time: refinement rounds, votes and step beam search."""
