"""`make soak`: a whole room for hours under random faults, and an observer outside it that counts what was lost."""
