"""Problem sets: the lab, published sets and files of the user."""
