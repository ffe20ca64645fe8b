"""Whether an exam could be recorded here: the camera is opened once, with its light, and closed."""

from __future__ import annotations

import logging

from appliance.camera.device import CABLE_HINT
from appliance.camera.lit_source import LitSource
from appliance.camera.source import CameraSource
from appliance.errors import ApplianceError, CameraStuck, CameraUnavailable
from appliance.light import Light
from appliance.policy import Video

log = logging.getLogger(__name__)

PROBE_VIDEO = Video()
FIRST_FRAME_S = 5.0


def camera_problem(source: CameraSource, light: Light) -> str | None:
    """What is wrong with the camera, in words; None when it gave a frame. Otherwise as `require_frame`."""
    try:
        require_frame(source, light)
    except CameraStuck:
        raise
    except ApplianceError as error:
        log.warning("camera.probe_failed reason=%s", error)
        return str(error)
    return None


def require_frame(source: CameraSource, light: Light) -> None:
    """One frame of a camera that is opened with its light, which is out afterwards; raises what is wrong.

    CameraStuck, with the light on, when the driver does not let go: the sensor may still be on.
    """
    try:
        with LitSource(source, light) as lit:
            frame = lit.read(FIRST_FRAME_S)
    except CameraStuck:
        raise
    except ApplianceError:
        light.off()
        raise
    if frame is None:
        raise CameraUnavailable(f"the camera delivered no frame within {FIRST_FRAME_S:.0f} s", CABLE_HINT)
