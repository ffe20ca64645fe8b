"""A whole simulated room on one machine: `make demo`, and the room that the tests use. Not part of the product."""
