"""Where MediaPipe's FaceMesh sees the corners and the iris of each eye, for `corners.py`; runs in the peer's own venv.

One line of JSON in: a file and the square to look at (left, top, right, bottom in pixels). One out: [[outer corner,
inner corner, middle of the iris], the same of the eye on the right of the picture], or null where it sees no face.
Imports nothing of ours, since its packages want another NumPy.
"""

from __future__ import annotations

import json
import sys

import cv2
import mediapipe
import numpy as np

POINTS = ((33, 133, 468), (263, 362, 473))


def main() -> None:
    """Answer each line."""
    mesh = mediapipe.solutions.face_mesh.FaceMesh(
        static_image_mode=True, max_num_faces=1, refine_landmarks=True, min_detection_confidence=0.2
    )
    for line in sys.stdin:
        asked = json.loads(line)
        left, top, right, bottom = asked["square"]
        part = np.asarray(cv2.imread(asked["file"]))[top:bottom, left:right]
        faces = mesh.process(cv2.cvtColor(part, cv2.COLOR_BGR2RGB)).multi_face_landmarks
        height, width = part.shape[:2]
        found = faces and [
            [[faces[0].landmark[i].x * width + left, faces[0].landmark[i].y * height + top] for i in eye]
            for eye in POINTS
        ]
        print(json.dumps(found or None), flush=True)


if __name__ == "__main__":
    main()
