"""Process 1 of a desk node: a frame source, the H.264 encoder, the indicator light and the preview."""
