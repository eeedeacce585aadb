"""Files: JSON Lines, TFDS records, and writing a file whole or not at all."""
