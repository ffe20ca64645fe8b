"""Invigil: an edge appliance for proctored exam rooms."""

__version__ = "0.1.0"
