"""Figures against peers and limits; each module prints one line of JSON."""
