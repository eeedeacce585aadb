"""The lab: a generated task of chained digit arithmetic on which every step can be checked."""
