"""Hostile bytes: mutated real artefacts against every parser that reads what others wrote.

`python -m tests.fuzz --help`; docs/threat-model.md has the numbers. An input is made from (target, seed, number)
alone, so that a line of a report is enough to make it again.
"""
