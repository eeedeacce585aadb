"""The episode browser: a folder of plain HTML, JavaScript and data that opens from disk."""
