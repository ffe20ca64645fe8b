"""Whether an exam could be recorded here: the camera is opened once, with its light, and closed."""

from __future__ import annotations

import logging

from appliance.camera.light import Light, LitSource
from appliance.camera.source import CameraSource
from appliance.errors import ApplianceError, CameraStuck
from appliance.policy import Video

log = logging.getLogger(__name__)

PROBE_VIDEO = Video()
FIRST_FRAME_S = 5.0


def camera_problem(source: CameraSource, light: Light) -> str | None:
    """What is wrong with the camera, in words; None when it gave a frame. The light is out afterwards.

    Raises CameraStuck, with the light on, when the driver does not let go: the sensor may still be on.
    """
    try:
        with LitSource(source, light) as lit:
            frame = lit.read(FIRST_FRAME_S)
    except CameraStuck:
        raise
    except ApplianceError as error:
        log.warning("camera.probe_failed reason=%s", error)
        light.off()
        return str(error)
    return None if frame is not None else f"the camera delivered no frame within {FIRST_FRAME_S:.0f} s"
