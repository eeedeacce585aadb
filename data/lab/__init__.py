"""The lab: generated chains of digit arithmetic, in which a program can check every step."""
