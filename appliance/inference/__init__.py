"""Process 2 of a desk node: from frames to observations, on the spot; no picture and no point leaves it."""
