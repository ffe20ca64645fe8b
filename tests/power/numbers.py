"""The counts of a run as one line of JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Numbers:
    """Base of what is counted: numbers, names, and lists of sentences."""

    def line(self) -> dict[str, int | str]:
        """Numbers and names alone, of each list how long it is."""
        return {
            name: len(value) if isinstance(value, list) else value for name, value in asdict(self).items()
        }
