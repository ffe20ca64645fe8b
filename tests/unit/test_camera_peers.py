"""What the model process says of itself reaches the camera's facts; nothing that is malformed does."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from appliance.camera.inbox import Inbox
from appliance.camera.peers import INFERENCE_SILENCE_S, Peers
from appliance.camera.pictures import WatchLease
from appliance.local_link import LocalClient, Message
from tests.manual_clock import ManualClock
from tests.unit.test_local_link import until

WORDS = "this desk's processor gives other numbers than the models were measured with"


class Link:
    def __init__(self, path: Path) -> None:
        self.clock = ManualClock()
        self.peers = Peers(path, Inbox(), WatchLease(self.clock), self.clock)
        self.model = LocalClient(path, lambda _message: None)
        until(lambda: self.model.connected, "the model process")

    def close(self) -> None:
        self.model.close()
        self.peers.close()

    def says(self, **said: object) -> None:
        message: Message = {"type": "inference", **said}
        assert self.model.send(message)

    def facts(self) -> tuple[float | None, str | None]:
        now_ns = self.clock.mono_ns()
        return self.peers.inference_rate_hz(now_ns), self.peers.inference_problem(now_ns)


@pytest.fixture
def link(tmp_path: Path) -> Iterator[Link]:
    with closing(Link(tmp_path / "camera.sock")) as made:
        yield made


def test_f035_why_no_voice_is_listened_for_is_known_until_it_is_or_the_listener_falls_silent(
    link: Link,
) -> None:
    def problem() -> str | None:
        return link.peers.listening_problem(link.clock.mono_ns())

    assert problem() == "the process that listens says nothing"
    link.says(type="listening", problem="the microphone gives no sound")
    until(lambda: problem() == "the microphone gives no sound", "problem")
    for nonsense in (17, "two\nlines", ["x"]):
        link.says(type="listening", problem=nonsense)
    link.says(type="listening", problem=None)
    until(lambda: problem() is None, "listening")
    link.clock.advance(INFERENCE_SILENCE_S + 0.1)
    assert problem() == "the process that listens says nothing"


def test_a_problem_takes_the_place_of_the_rate_and_the_rate_of_the_problem(link: Link) -> None:
    assert link.facts() == (None, None)
    link.says(rate_hz=4.8)
    until(lambda: link.facts() == (4.8, None), "rate")
    link.says(problem=WORDS)
    until(lambda: link.facts() == (None, WORDS), "problem")
    link.says(rate_hz=2.5)
    until(lambda: link.facts() == (2.5, None), "rate again")


def test_a_problem_is_forgotten_with_the_one_who_said_it(link: Link) -> None:
    link.says(problem=WORDS)
    until(lambda: link.facts() == (None, WORDS), "problem")
    link.clock.advance(INFERENCE_SILENCE_S + 0.1)
    assert link.facts() == (None, None)
    link.says(problem=WORDS)
    until(lambda: link.facts() == (None, WORDS), "problem again")
    link.model.close()
    until(lambda: link.facts() == (None, None), "gone")


@pytest.mark.parametrize("said", ["a\nline", "x" * 201, 7, None, ["words"]])
def test_words_that_cannot_be_shown_are_not_taken(link: Link, said: object) -> None:
    link.says(problem=said)
    link.says(rate_hz=1.0)
    until(lambda: link.facts() == (1.0, None), "rate")
    link.says(problem=said)
    link.says(rate_hz=2.0)
    until(lambda: link.facts() == (2.0, None), "rate")
