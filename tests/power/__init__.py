"""Cuts the power under a real writer process and compares what is found afterwards with what was acknowledged."""
