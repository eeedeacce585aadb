"""Files: JSON Lines, array_record files of episodes, TFDS records, and atomic writes."""
