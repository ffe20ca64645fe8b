"""The thread that hears: sound in, half seconds of yes or no out. It alone waits for a driver, so nothing else does.

Sound lives here for 32 ms at a time. A microphone that goes is looked for until it is back. The thread is a daemon: one
that a driver holds neither keeps the process nor its end waiting.
"""

from __future__ import annotations

import logging
import queue
import threading

import numpy as np

from appliance.clock import Clock
from appliance.errors import MicrophoneUnavailable
from appliance.inference.microphone import Microphone, Samples
from appliance.inference.voice import Moment, Moments
from appliance.inference.voice_network import VoiceNetwork

log = logging.getLogger(__name__)

RETRY_S = 5.0


class Ear(threading.Thread):
    """Hears from `start` to `ask_to_stop`. `moments` is what it heard; `lost` why it hears nothing now."""

    def __init__(
        self,
        microphone: Microphone,
        network: VoiceNetwork,
        clock: Clock,
        stop: threading.Event,
        retry_s: float = RETRY_S,
    ) -> None:
        super().__init__(name="ear", daemon=True)
        self.moments: queue.SimpleQueue[Moment] = queue.SimpleQueue()
        self.lost: str | None = None
        self._microphone = microphone
        self._network = network
        self._clock = clock
        self._stop_asked = stop
        self._retry_s = retry_s

    def ask_to_stop(self) -> None:
        """Let go of the microphone as soon as it has given what it is about to give."""
        self._stop_asked.set()

    def run(self) -> None:
        """Hear, and open the microphone again when it goes."""
        while not self._stop_asked.is_set():
            try:
                self._hear()
            except MicrophoneUnavailable as error:
                if self.lost is None:
                    log.warning("microphone.lost reason=%s hint=%s", error, error.hint)
                self.lost = str(error)
                self._stop_asked.wait(self._retry_s)

    def _hear(self) -> None:
        self._network.forget()
        moments = Moments()
        for piece in self._microphone.pieces():
            if self.lost is not None:
                log.info("microphone.back")
                self.lost = None
            sure = self._network.hear(piece.astype(np.float32) / np.float32(32768))
            moment = moments.add(None if is_muted(piece) else sure, self._clock.mono_ns())
            if moment is not None:
                self.moments.put(moment)


def is_muted(piece: Samples) -> bool:
    """A real microphone is never quite still: its own noise moves at least the last bit."""
    return bool(piece.min() == piece.max())
