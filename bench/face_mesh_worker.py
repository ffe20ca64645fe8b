"""MediaPipe's FaceMesh with iris refinement over one clip, on request: run by bench/inference.py in a venv of its own.

One line in, one line out: milliseconds of CPU a frame, and in how many frames it saw a face. Imports nothing of ours,
since its packages want another NumPy.
"""

from __future__ import annotations

import sys
import time

import cv2
import mediapipe

SIZE = (640, 480)


def main() -> None:
    """Read the clip once, then answer each line with one pass over it."""
    capture, frames = cv2.VideoCapture(sys.argv[1]), []
    while (read := capture.read())[0]:
        small = cv2.resize(read[1], SIZE, interpolation=cv2.INTER_AREA)
        frames.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
    mesh = mediapipe.solutions.face_mesh.FaceMesh(max_num_faces=1, refine_landmarks=True)
    mesh.process(frames[0])
    for _ in sys.stdin:
        begun_s = time.process_time()
        seen = sum(bool(mesh.process(frame).multi_face_landmarks) for frame in frames)
        print(1e3 * (time.process_time() - begun_s) / len(frames), seen, flush=True)


if __name__ == "__main__":
    main()
