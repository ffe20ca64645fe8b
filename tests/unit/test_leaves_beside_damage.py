"""leaves.bin: with it the witnessed root holds although files of the session were damaged; both verifiers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import Result

from appliance.errors import EvidenceBroken
from appliance.evf.scan import scan_segment
from appliance.evidence.manifest import LEAVES_NAME, leaf_indices
from appliance.evidence.merkle import event_leaf
from tests.altered_sessions import renew
from tests.archive_commands import run, verify
from tests.both_verifiers import VERIFIER, arguments, built
from tests.damaged_sessions import DAMAGES, FIRST, LAST, flip, permit, place
from tests.sessions import Built
from tests.unit.test_archive_one_pass import Opened, sealed_anew

__all__ = ["built"]


def leaves_of(built: Built) -> bytes:
    """As the desk's index has them, while every file is as recorded."""
    leaves = {event.index: event_leaf(event.body) for event in built.manifest.events}
    for entry in built.manifest.segments:
        with built.segment(entry.name).open("rb") as stream:
            records = scan_segment(stream).records
        leaves.update(zip(leaf_indices(entry), (record.leaf for record in records), strict=True))
    return b"".join(leaves[index] for index in range(built.manifest.leaves))


def give(built: Built, leaves: bytes) -> None:
    (built.folder / LEAVES_NAME).write_bytes(leaves)


def opened(built: Built, out: Path) -> Result:
    return run(built, "open", "--out", out)


def lines(output: str, state: str) -> list[str]:
    return [line for line in output.splitlines() if line.startswith(state)]


def alone(built: Built, capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert VERIFIER.main(arguments(built)) == 1  # a damaged session is never whole
    return capsys.readouterr().out


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_root_holds_beside_damage(built: Built, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    damage, leaves = DAMAGES[kind], leaves_of(built)
    damage.do(built)
    permit(built, *damage.names)
    give(built, leaves)
    said = alone(built, capsys)
    assert len(lines(said, "lost")) == len(damage.names)
    assert not lines(said, "broken")
    assert any("witnessed root" in line and "lead to it" in line for line in lines(said, "ok"))
    verified = verify(built)
    assert isinstance(verified.exception, EvidenceBroken)
    assert len(lines(verified.output, "lost")) == len(damage.names)
    assert not lines(verified.output, "broken")


def test_open_says_what_the_root_does_not_prove_only_without_the_leaves(built: Built, tmp_path: Path) -> None:
    leaves = leaves_of(built)
    flip(built, FIRST)
    permit(built, FIRST)
    words = "the root that the room witnessed cannot be computed"
    assert words in opened(built, tmp_path / "without.mp4").output  # control
    give(built, leaves)
    said = opened(built, tmp_path / "with.mp4")
    assert said.exit_code == 0
    assert words not in said.output
    assert (tmp_path / "with.mp4").read_bytes() == (tmp_path / "without.mp4").read_bytes()


@pytest.mark.parametrize("own", [False, True], ids=["witnessed leaves", "leaves of their own"])
def test_damage_is_no_cover_for_another_segment(
    built: Built, own: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who has the desk's key rewrites one segment, spoils another and has that released."""
    witnessed = leaves_of(built)
    data = bytearray(place(built, LAST).read_bytes())
    data[-200] ^= 1
    renew(built, LAST, bytes(data))
    leaves = leaves_of(built) if own else witnessed
    flip(built, FIRST)
    permit(built, FIRST)
    assert not lines(alone(built, capsys), "broken")  # control: without any leaves nobody can tell
    assert not lines(verify(built).output, "broken")
    give(built, leaves)
    state = "lost" if own else "broken"
    verified = verify(built)
    assert isinstance(verified.exception, EvidenceBroken)
    for output in (alone(built, capsys), verified.output + str(verified.exception)):
        assert "witnessed root" in output
        assert not any("witnessed root" in line and LEAVES_NAME not in line for line in lines(output, "ok"))
    assert any("witnessed root" in line for line in lines(alone(built, capsys), state))


def test_of_a_damaged_segment_only_what_was_witnessed_is_in_the_film(built: Built, tmp_path: Path) -> None:
    """Who holds the segment's key seals its last fragment anew, and has the file released as damaged."""
    leaves, film = leaves_of(built), built.film.read_bytes()
    forged = sealed_anew(place(built, FIRST), Opened(built).keys, "2026-11-22T09:00:00.000Z")
    place(built, FIRST).write_bytes(forged)
    permit(built, FIRST)
    assert opened(built, tmp_path / "without.mp4").exit_code == 0
    false = (tmp_path / "without.mp4").read_bytes()
    assert (len(false), false != film) == (len(film), True)  # control: the key alone lets it pass
    give(built, leaves)
    said = opened(built, tmp_path / "with.mp4")
    assert "1 records do not open and are left out" in said.output
    assert "it is not the record that was witnessed" in said.output
    assert 0 < len((tmp_path / "with.mp4").read_bytes()) < len(film)


@pytest.mark.parametrize(
    "wrong",
    [lambda data: data[:-1], lambda data: data + bytes(32), lambda data: bytes([data[0] ^ 1]) + data[1:]],
    ids=["short", "long", "a bit"],
)
def test_leaves_that_do_not_lead_to_the_root_prove_nothing_and_shut_nothing(
    built: Built, wrong: Callable[[bytes], bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    leaves = leaves_of(built)
    flip(built, FIRST)
    permit(built, FIRST)
    give(built, wrong(leaves))
    for said in (alone(built, capsys), verify(built).output):
        assert any(LEAVES_NAME in line for line in lines(said, "lost"))
        assert not lines(said, "broken")
    film = opened(built, tmp_path / "exam.mp4")
    assert film.exit_code == 0
    assert "the root that the room witnessed cannot be computed" in film.output


def test_beside_a_whole_session_they_are_a_file_that_nobody_named(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    give(built, leaves_of(built))
    assert any("not named in the manifest" in line for line in lines(alone(built, capsys), "broken"))
    assert "not named in the manifest" in str(verify(built).exception)
