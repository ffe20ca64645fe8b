"""Room acceptance test: staff act 24 behaviours at a desk and read in a report what was observed."""
