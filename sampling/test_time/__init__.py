"""Test-time strategies: critique and refinement rounds, votes, beam search."""
