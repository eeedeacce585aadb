"""Examples in docstrings of the public API run and print what they show."""

import doctest

from elenchus.model import lora, transformer


def test_examples_of_transformer_and_lora_run():
    """The example of LoRA continues with the variables of the example of Transformer."""
    variables = {}
    finder, runner = doctest.DocTestFinder(recurse=False), doctest.DocTestRunner()
    for documented in (transformer.Transformer, lora):
        (example,) = finder.find(documented, documented.__name__)
        example.globs = variables
        runner.run(example, clear_globs=False)
    assert runner.tries > 15
    assert not runner.failures
