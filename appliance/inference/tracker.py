"""From frames to signals: the detector about twice a second and when a face is lost, points and eyes on
every frame.

One per candidate and session; runs in the inference process and is handed frames, so it owns no device.
Everything it remembers between frames (points, boxes) is in memory only and gone with it (F038, F039).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from appliance import picture_quality
from appliance.inference import gaze, head_pose
from appliance.inference.eye_crops import cut_eyes
from appliance.inference.face import Face, find_faces
from appliance.inference.landmarks import (
    Box,
    Landmarks,
    box_of_points,
    find_landmarks,
    region_of_face,
    region_of_points,
)
from appliance.inference.models import Models
from appliance.inference.signals import Signals

# Below this the landmark network says that its square holds no face (MediaPipe's own threshold).
PRESENCE_THRESHOLD = 0.5
# The detector loses profiles that the points still follow; past this many misses in a row (2 s at the usual
# interval) the points are more likely stuck on something else.
MISSES_BELIEVED = 4
# Beyond this head yaw the far eye is hidden; the labelled heads end at 37, so nothing is claimed there.
EYES_READABLE_YAW_DEG = 50.0


class Tracker:
    """Reads one person's desk; `models.eyes` None means that gaze is off (F042)."""

    def __init__(self, models: Models, detector_interval_s: float = 0.5) -> None:
        self._models = models
        self._interval_ns = round(detector_interval_s * 1e9)
        self._face: Landmarks | None = None
        self._counted = 0
        self._maybe_face = False
        self._misses = 0
        self._quality = "good"
        self._detected_ns: int | None = None

    def process(self, frame_bgr: NDArray[np.uint8], taken_mono_ns: int) -> Signals:
        """Signals of an H x W x 3 BGR frame taken at `taken_mono_ns`."""
        face = self._follow(frame_bgr)
        lost = self._face is not None and face is None
        self._face = face
        if lost or self._is_due(taken_mono_ns):
            self._detect(frame_bgr, taken_mono_ns)
        return self._read(frame_bgr, taken_mono_ns)

    @property
    def points(self) -> NDArray[np.float32] | None:
        """(468, 3) points of the face that is followed, in pixels of the last frame; None where there is none."""
        return None if self._face is None else self._face.points

    def _is_due(self, now_ns: int) -> bool:
        # A clock that went back means another recording: look again at once.
        return self._detected_ns is None or not 0 <= now_ns - self._detected_ns < self._interval_ns

    def _follow(self, frame_bgr: NDArray[np.uint8]) -> Landmarks | None:
        if self._face is None:
            return None
        found = find_landmarks(self._models.landmarks, frame_bgr, region_of_points(self._face.points))
        return found if found.presence >= PRESENCE_THRESHOLD else None

    def _detect(self, frame_bgr: NDArray[np.uint8], now_ns: int) -> None:
        self._detected_ns = now_ns
        # The detector and the judge of the light look at one small picture.
        small = picture_quality.small(frame_bgr)
        zoom = frame_bgr.shape[1] / small.shape[1]
        faces = find_faces(self._models.detector, small, zoom)
        if (points := self.points) is not None:
            self._misses = 0 if any(face.holds(points) for face in faces) else self._misses + 1
            if self._misses >= MISSES_BELIEVED:
                self._face = None
        if self._face is None and faces:
            self._misses = 0
            self._face = self._begin(frame_bgr, max(faces, key=lambda face: (face.is_sure, face.size)))
        self._counted = count_people(faces, self.points)
        self._maybe_face = bool(faces)
        self._quality = picture_quality.assess(small, _box(faces, self.points, zoom))

    def _begin(self, frame_bgr: NDArray[np.uint8], face: Face) -> Landmarks | None:
        network = self._models.landmarks
        rough = find_landmarks(network, frame_bgr, region_of_face(face))
        # The detector's box sits badly on a turned head; the points' own square decides.
        found = find_landmarks(network, frame_bgr, region_of_points(rough.points))
        return found if found.presence >= PRESENCE_THRESHOLD else None

    def _read(self, frame_bgr: NDArray[np.uint8], now_ns: int) -> Signals:
        readable = self._quality == "good"
        if self._face is None:
            # What may be a face but does not fit the points is turned, cut or covered, or none: neither way.
            return Signals(now_ns, self._counted, readable and not self._maybe_face, self._quality)
        head = head_pose.estimate(self._models.head, self._face)
        if head is None:
            return Signals(now_ns, self._counted, False, self._quality)
        look = self._look(frame_bgr, self._face.points, head)
        return Signals(
            now_ns,
            self._counted,
            readable,
            self._quality,
            head.yaw_deg,
            head.pitch_deg,
            head.roll_deg,
            look.yaw_deg if look else None,
            look.pitch_deg if look else None,
            look.uncertainty_deg if look else None,
        )

    def _look(
        self, frame_bgr: NDArray[np.uint8], points: NDArray[np.float32], head: head_pose.HeadPose
    ) -> gaze.Gaze | None:
        if self._models.eyes is None or abs(head.yaw_deg) > EYES_READABLE_YAW_DEG:
            return None
        crops = cut_eyes(frame_bgr, points, head.pixels_per_mm)
        return None if crops is None else gaze.estimate(self._models.eyes, crops, head)


def count_people(faces: list[Face], points: NDArray[np.float32] | None) -> int:
    """People in view (F043): every sure face, and the followed one where it is not among them."""
    sure = [face for face in faces if face.is_sure]
    return len(sure) + int(points is not None and not any(face.holds(points) for face in sure))


def _box(faces: list[Face], points: NDArray[np.float32] | None, zoom: float) -> Box | None:
    """The largest face in a picture that is so many times as small."""
    sure = [face for face in faces if face.is_sure]
    if points is not None:
        left, top, right, bottom = box_of_points(points)
    elif sure:
        left, top, right, bottom = sure[0].left, sure[0].top, sure[0].right, sure[0].bottom
    else:
        return None
    return left / zoom, top / zoom, right / zoom, bottom / zoom
