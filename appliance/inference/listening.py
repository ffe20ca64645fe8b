"""Listens for voices where the exam's policy says so, beside the picture: a thread hears, this follows the sessions.

Without that switch, or at a seat where a voice is expected, neither the network nor the library for sound is loaded and
no device is opened (F004, F033). Where it cannot listen the camera process hears why; that never becomes "no voice".
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from appliance.clock import Clock
from appliance.config import NodeConfig
from appliance.errors import BadConfig, ModelMissing, ModelsDiffer
from appliance.inference.accommodations import accommodated
from appliance.inference.reports import Reports
from appliance.inference.rules import SOUND_RULES, Rule, with_levels
from appliance.inference.voice import Moment, VoiceObserver
from appliance.light import Light, SharedLight, light_at
from appliance.local_link import Message

if TYPE_CHECKING:
    from appliance.inference.ear import Ear

log = logging.getLogger(__name__)

# Beyond all keys of the observations that are seen: both kinds come from one process.
FIRST_KEY = 1 << 32
REPORT_INTERVAL_NS = 1_000_000_000
# Moments come twice a second. Without one for so long it is not known whether there is a voice.
HOLE_NS = 2_000_000_000
# A microphone that opens may need a second or two; a driver that then gives nothing has hung.
SILENCE_NS = 5_000_000_000
# A microphone that suppresses noise gives nothing between two noises; nobody is quite still for half a minute.
MUTED_NS = 30_000_000_000
STARTING = "the microphone is being opened"
NO_SOUND = "the microphone gives no sound"
MUTED = "the microphone is muted: not the least sound for half a minute"


class Speaker(Protocol):
    """Where messages for the camera process go; LocalClient in the product."""

    def send(self, message: Message) -> bool: ...


class Listener:
    """Follows the camera's sessions; `step` is quick, whatever the microphone does."""

    def __init__(self, link: Speaker, clock: Clock, open_ear: Callable[[], Ear]) -> None:
        """`open_ear` gives a running ear and is only called where voices are listened for; raises ModelMissing,
        ModelsDiffer or BadConfig where that cannot be."""
        self._link = link
        self._clock = clock
        self._open_ear = open_ear
        self._sid: str | None = None
        self._ear: Ear | None = None
        self._observer = VoiceObserver(())
        self._problem: str | None = None
        self._report_due_ns = 0

    def follow(self, session: Message) -> None:
        """Do what the camera's newest session message asks for; another session closes what is open."""
        if session["sid"] == self._sid:
            # To a new connection: with the old one the camera closed what was open. What goes on opens anew.
            self._observer.close(self._clock.mono_ns())
            return
        self._end()
        self._sid = session["sid"]
        rules = self._rules(session)
        if not rules:
            return
        self._observer, self._reports = VoiceObserver(rules), Reports(session, FIRST_KEY)
        self._known_ns = self._heard_ns = self._sound_ns = self._clock.mono_ns()
        self._problem, self._started = None, False
        try:
            self._ear = self._open_ear()
            log.info("listening.began sid=%s", self._sid)
        except (ModelMissing, ModelsDiffer, BadConfig) as error:
            # The picture is looked at all the same.
            log.error("listening.refused reason=%s hint=%s", error, error.hint)
            self._problem = str(error)
        self._report_due_ns = 0

    def step(self) -> None:
        """Say what was heard since the last step, and once a second whether it hears."""
        if self._sid is None or (self._ear is None and self._problem is None):
            return
        now_ns = self._clock.mono_ns()
        if self._ear is not None:
            while not self._ear.moments.empty():
                self._take(self._ear.moments.get())
            if now_ns - self._known_ns >= HOLE_NS:
                self._take(Moment(now_ns, None), is_sound=False)
        if now_ns >= self._report_due_ns:
            self._report_due_ns = now_ns + REPORT_INTERVAL_NS
            self._link.send({"type": "listening", "problem": self._trouble(now_ns)})

    def close(self) -> None:
        """Close what is open and let go of the microphone."""
        self._end()

    def _rules(self, session: Message) -> tuple[Rule, ...]:
        if session["sid"] is None or not session.get("voice", False):
            return ()
        return accommodated(with_levels(SOUND_RULES, session["levels"]), session.get("accommodations", ()))

    def _take(self, moment: Moment, is_sound: bool = True) -> None:
        self._known_ns = moment.ended_mono_ns
        if is_sound:
            self._started, self._sound_ns = True, moment.ended_mono_ns
        if moment.share is not None:
            self._heard_ns = moment.ended_mono_ns
        for each in self._observer.process(moment):
            self._link.send(self._reports.message(each))

    def _trouble(self, now_ns: int) -> str | None:
        if self._ear is None:
            return self._problem
        if self._ear.lost is not None:
            return self._ear.lost
        if not self._ear.is_alive():
            return "listening ended by itself; see the node's log"
        if now_ns - self._sound_ns >= SILENCE_NS:
            return NO_SOUND
        if not self._started:
            return STARTING
        return MUTED if now_ns - self._heard_ns >= MUTED_NS else None

    def _end(self) -> None:
        if self._ear is not None:
            for each in self._observer.close(self._clock.mono_ns()):
                self._link.send(self._reports.message(each))
            # Not waited for: a driver that holds the thread must not hold the picture, too.
            self._ear.ask_to_stop()
            log.info("listening.ended sid=%s", self._sid)
        self._ear = self._problem = self._sid = None


def ears_of(config: NodeConfig, clock: Clock) -> Callable[[], Ear]:
    """What opens a running ear at the desk's microphone, unless the lamp that it should have cannot be lit (F033)."""
    try:
        light = light_at(config.microphone_light_pin)
        light.off()  # whoever left it lit is dead, and the kernel has closed what it had open
    except BadConfig as error:
        problem = error

        def refuse() -> Ear:
            raise problem

        return refuse
    # The next session's ear may open its microphone before the last one's thread has closed it.
    shared = SharedLight(light)
    return lambda: ear_of(config.microphone, shared, clock)


def ear_of(microphone: str, light: Light, clock: Clock) -> Ear:
    """A running ear at this microphone (NodeConfig.microphone). All that listening needs is loaded here."""
    from appliance.inference.ear import Ear
    from appliance.inference.microphone import Microphone
    from appliance.inference.voice_network import load_voice_network
    from appliance.inference.voice_selftest import check

    network = load_voice_network()
    check(network)
    stop = threading.Event()
    ear = Ear(Microphone(microphone, light, stop, clock), network, clock, stop)
    ear.start()
    return ear
