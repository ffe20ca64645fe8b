"""A short share of the hostile inputs, and that the fuzzing itself would notice what it looks for."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest

from appliance.evf import canonical, reader, signed
from tests.fuzz import engine, on_format, on_wire
from tests.fuzz.catalogue import TARGETS
from tests.fuzz.engine import Accepted, Target, random_of, run
from tests.fuzz.mutate import ALTERATIONS, MAX_BYTES, altered
from tests.fuzz.mutate_json import altered_json, altered_text
from tests.fuzz.segments import secret_of
from tests.fuzz.weakened import weakened

CHECKOUT = Path(__file__).parents[2]
SHARE = 0.0015


def python(*arguments: str) -> list[dict[str, Any]]:
    """Lines of JSON from a process of its own: forking is not for a process with threads."""
    done = subprocess.run(
        [sys.executable, *arguments], cwd=CHECKOUT, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.stdout, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_short_share_of_every_target() -> None:
    """The full 10^6 run in `make test-deep`; here some thousand, of other inputs each time."""
    lines = python("-m", "tests.fuzz", "--share", str(SHARE))
    assert [line["target"] for line in lines] == list(TARGETS)
    assert sum(line["inputs"] for line in lines) >= SHARE * 10**6
    for line in lines:
        assert line["failures"] == {}, line
        assert line["inputs"] == round(TARGETS[line["target"]][1] * SHARE), line


def test_full_share_is_a_million() -> None:
    assert sum(share for _, share in TARGETS.values()) >= 10**6


@pytest.fixture(autouse=True)
def _kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What fails here is meant to."""
    monkeypatch.setattr(engine, "KEPT", tmp_path / "kept")


# --- The engine


def target(check: Callable[[int], str]) -> Target:
    """Inputs are the numbers of their random's first byte."""
    return Target(lambda rng: rng.randrange(256), check)


def test_undocumented_error_is_a_failure_that_can_be_made_again() -> None:
    def check(value: int) -> str:
        if value == 7:
            raise KeyError("seven")
        return "fine"

    report = run("test", target(check), 5, 0, 2000)
    ((sentence, numbers),) = report.failures.items()
    assert sentence.startswith("KeyError at ")
    assert report.inputs == 2000
    assert all(random_of("test", 5, number).randrange(256) == 7 for number in numbers)
    assert run("test", target(check), 5, numbers[0], 1).failures == {sentence: numbers[:1]}


def test_wrong_yes_is_a_failure() -> None:
    def check(value: int) -> str:
        raise Accepted("taken")

    assert list(run("test", target(check), 5, 0, 3).failures) != []


def test_endless_loop_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "LIMIT_CPU_S", 0.1)

    def check(value: int) -> str:
        while value < 128:
            pass
        return "fine"

    report = run("test", target(check), 5, 0, 8)
    assert report.inputs == 8
    assert any(sentence.startswith("TookTooLong") for sentence in report.failures)
    assert report.outcomes["fine"]


def _deadly(value: int) -> str:
    match value % 64:
        case 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        case 2:
            time.sleep(3600)
        case 3:
            bytearray(3 << 30)
    return "fine"


@contextmanager
def deadly(_folder: Path) -> Iterator[Target]:
    yield target(_deadly)


def test_crash_of_a_library_wait_and_gulp_of_memory_are_failures_and_the_rest_goes_on() -> None:
    script = (
        "import json; from tests.fuzz import isolation; from tests.unit.test_fuzz import deadly;"
        "isolation.STILL_S = 0.5; print(json.dumps(isolation.run_apart('test', deadly, 5, 40).line()))"
    )
    (line,) = python("-c", script)
    assert line["inputs"] == 40
    said = " ".join(line["failures"])
    for words in ("killed by SIGSEGV", "stood still", "MemoryError"):
        assert words in said, line


# --- Alterations


def test_inputs_differ_from_their_seeds_and_stay_small() -> None:
    seeds = [bytes(range(200)), b'{"a":[1,2,{"b":"c"}]}']
    made = [altered(random_of("test", 1, number), seeds) for number in range(2000)]
    assert max(map(len, made)) <= MAX_BYTES
    assert sum(data in seeds for data in made) < 60
    assert len(set(made)) > 1500
    texts = [altered_text(random_of("test", 2, number), [{"a": [1, "x", None]}]) for number in range(2000)]
    assert max(map(len, texts)) <= MAX_BYTES
    assert len(set(texts)) > 1000
    for piece in (b"\\ud800", b"NaN", b"[[[[[[", b"unknown", b"\\u0000"):
        assert any(piece in text for text in texts), piece


@pytest.mark.parametrize("alteration", ALTERATIONS)
def test_each_alteration_takes_the_empty_input(alteration: Callable[..., None]) -> None:
    for number in range(20):
        alteration(Random(number), bytearray(), [b""])


def test_seeds_stay_as_they_were() -> None:
    seeds = [{"a": [1, {"b": "c"}]}]
    for number in range(300):
        altered_json(Random(number), seeds)
    assert seeds == [{"a": [1, {"b": "c"}]}]


# --- Controls: with a check taken out, the same inputs get through


@pytest.mark.parametrize(
    "change",
    [
        ("if not hmac.compare_digest(plaintext, chain):", "if False:"),
        ("if self._stream.read(1):", "if False:"),
        (
            'self.outcome, self.reason = Outcome.OPEN_ENDED, f"file ends {where}"',
            "self.outcome = Outcome.CLOSED",
        ),
    ],
    ids=["no chain", "bytes behind the end", "a cut is closed"],
)
def test_control_reader_without_a_check(change: tuple[str, str]) -> None:
    module = weakened(reader, change)

    def read(data: bytes) -> Any:
        reading = module.SegmentReader(io.BytesIO(data), secret_of)
        return list(reading), reading.outcome

    report = run("segment", on_format.segment_target(read), 3, 0, 1500)
    assert any("takes an altered file for closed" in sentence for sentence in report.failures)


def test_control_signature_not_verified(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = weakened(signed, ("        public_key.verify(signature, message)\n", ""))
    monkeypatch.setattr("appliance.protocol.verify_document", module.verify_document)
    with on_wire.command(tmp_path) as made:
        report = run("command", made, 3, 0, 800)
    assert any("that the room did not sign is taken" in sentence for sentence in report.failures)


def test_control_json_in_any_spelling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    module = weakened(canonical, ("if canonical(value) != data:", "if False:"))
    monkeypatch.setattr("tests.fuzz.on_format.parse_canonical", module.parse_canonical)
    with on_format.json_form(tmp_path) as made:
        report = run("json", made, 3, 0, 500)
    assert any("second spelling" in sentence for sentence in report.failures)
