"""Files that a person released as damaged are told as lost; nothing else is excused by it (one-file verifier)."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from tests.altered_sessions import declare_lost, note, resign
from tests.both_verifiers import VERIFIER, arguments, built
from tests.damaged_sessions import (
    DAMAGED,
    DAMAGES,
    EXCESSES,
    FIRST,
    GONE,
    LAST,
    MALFORMED,
    WRAP,
    as_it_lies,
    flip,
    permit,
    permit_items,
    place,
)
from tests.rewrapped_session import stand_alone
from tests.rewraps import recipient_set, rewrap
from tests.sessions import Built, Plan, build_session

__all__ = ["built"]

ALL = "00:00:00-00:00:54"
APPROVED = f"ok      {ALL}  approval.json  released by m.jansen at 2026-11-22T12:10:04.000Z"
ROOT_LOST = f"lost    {ALL}  witnessed root  cannot be computed without the damaged files"


class Alone:
    """What the one-file verifier says of the folder."""

    def __init__(self, built: Built, capsys: pytest.CaptureFixture[str]) -> None:
        capsys.readouterr()
        self.code = VERIFIER.main(arguments(built))
        *self.lines, self.last = capsys.readouterr().out.splitlines()

    def of(self, state: str) -> list[str]:
        """Names in the lines of this state."""
        return [re.split("  |: ", line[27:])[0] for line in self.lines if line.startswith(state)]


@pytest.mark.parametrize("kind", DAMAGES)
def test_damage_that_a_person_released_is_lost(
    built: Built, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage = DAMAGES[kind]
    damage.do(built)
    permit(built, *damage.names)
    said = Alone(built, capsys)
    segments = any(name.endswith(".evf") for name in damage.names)
    assert said.code == 1
    assert said.of("broken") == []
    assert sorted(said.of("lost")) == sorted([*damage.names, *(["witnessed root"] if segments else [])])
    told = {line[27:] for line in said.lines if line.startswith("lost")}
    assert {f"{name}  {damage.words}" for name in damage.names} <= told
    assert any(line.startswith(ROOT_LOST) for line in said.lines) == segments
    number = len(damage.names)
    files = "1 file" if number == 1 else f"{number} files"
    assert f"{APPROVED}; {files} of it as damaged on the desk" in said.lines


@pytest.mark.parametrize("kind", DAMAGES)
def test_control_the_same_damage_without_permission_is_broken(
    built: Built, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    damage = DAMAGES[kind]
    damage.do(built)
    said = Alone(built, capsys)
    segments = any(name.endswith(".evf") for name in damage.names)
    assert said.code == 1
    assert said.of("lost") == []
    assert sorted(said.of("broken")) == sorted([*damage.names, *(["witnessed root"] if segments else [])])
    assert APPROVED in said.lines


@pytest.mark.parametrize("kind", EXCESSES)
def test_permission_excuses_nothing_else(built: Built, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    excess = EXCESSES[kind]
    excess.do(built)
    said = Alone(built, capsys)
    assert said.code == 1
    assert excess.name in said.of("broken")
    assert f"  {excess.name}: " in said.last
    assert any(line.startswith(APPROVED) for line in said.lines) == excess.released
    if not excess.released:
        assert FIRST in said.of("broken")
        assert said.of("lost") == []


@pytest.mark.parametrize("kind", MALFORMED)
def test_malformed_permission_is_no_release_and_permits_nothing(
    built: Built, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(built, FIRST)
    permit_items(built, MALFORMED[kind](as_it_lies(built, FIRST)))
    said = Alone(built, capsys)
    assert said.code == 1
    assert said.of("broken") == ["approval.json", FIRST, "witnessed root"]
    assert said.of("lost") == []
    permit(built, FIRST)
    assert Alone(built, capsys).of("broken") == []


def test_last_line_names_the_loss_and_who_released_it(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(built, LAST)
    permit(built, LAST)
    said = Alone(built, capsys)
    assert said.last == f"session is not whole: 00:00:48-00:00:54  {LAST}: {DAMAGED}; and 1 more"
    place(built, LAST).unlink()
    permit(built, LAST)
    assert Alone(built, capsys).last.endswith(f"  {LAST}: {GONE}; and 1 more")


def test_file_that_is_whole_after_all_needs_no_permission(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    """A disk that reads again, or a backup: the manifest's bytes are right, whatever else was permitted."""
    whole = {name: place(built, name).read_bytes() for name in (FIRST, WRAP)}
    flip(built, FIRST)
    place(built, WRAP).unlink()
    permit(built, FIRST, WRAP)
    assert Alone(built, capsys).code == 1
    for name, data in whole.items():
        place(built, name).write_bytes(data)
    said = Alone(built, capsys)
    assert (said.code, said.last) == (0, f"session is whole: {ALL}")
    assert f"{APPROVED}; 2 files of it as damaged on the desk" in said.lines


def test_permission_for_a_file_that_was_never_damaged_makes_it_no_loss(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    permit(built, FIRST, WRAP)
    assert Alone(built, capsys).code == 0


def test_damaged_wrap_leaves_the_root_provable(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    flip(built, WRAP)
    permit(built, WRAP)
    said = Alone(built, capsys)
    assert said.last == f"session is not whole: 00:00:00-00:00:12  {WRAP}: {DAMAGED}"
    assert any(line.startswith(f"ok      {ALL}  witnessed root") for line in said.lines)


def test_root_is_broken_when_more_is_missing_than_was_released(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    flip(built, FIRST)
    permit(built, FIRST)
    flip(built, LAST)
    said = Alone(built, capsys)
    assert said.of("broken") == [LAST, "witnessed root"]
    assert said.of("lost") == [FIRST]


def test_loss_that_the_desk_declared_stands_beside_it(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    declare_lost(built)
    flip(built, FIRST)
    permit(built, FIRST)
    said = Alone(built, capsys)
    assert said.of("broken") == []
    lost = built.manifest.segments[-1].name
    assert said.of("lost") == [FIRST, "witnessed root", lost]


def test_wrap_that_was_erased_on_purpose_later_is_not_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    built = build_session(tmp_path, Plan(recipients=(1, 2)))
    rewrap(built, recipient_set(3, 1))
    assert not place(built, WRAP).exists()
    permit(built, WRAP)
    code, said = stand_alone(built, capsys)
    assert (code, said.splitlines()[-1]) == (0, f"session is whole: {ALL}")


def test_a_release_names_4096_damaged_files_at_most() -> None:
    items = [{"name": f"{number}.evk", "size_bytes": 0, "sha256": None} for number in range(4097)]
    manifest = {"segments": [], "wraps": items}
    VERIFIER.check_damaged(items[:4096], manifest)
    with pytest.raises(VERIFIER.Problem, match="too long"):
        VERIFIER.check_damaged(items, manifest)


def test_damaged_file_of_countless_records_takes_no_memory(
    built: Built, capsys: pytest.CaptureFixture[str]
) -> None:
    """The desk's manifest says how many records a damaged file had; there is no file to hold it against."""
    *others, last = built.manifest.segments
    more = 10**12
    first, count = last.leaf_runs[0]
    leaves = built.manifest.leaves + more
    assert first + count == built.manifest.leaves
    entry = replace(last, records=count + more, leaf_runs=((first, count + more),))
    changed = {"segments": (*others, entry), "leaves": leaves, **note(built, leaves=leaves)}
    resign(built, replace(built.manifest, **changed))  # type: ignore[arg-type]
    flip(built, last.name)
    permit(built, last.name)
    said = Alone(built, capsys)
    assert said.of("broken") == []
    assert said.of("lost") == [last.name, "witnessed root"]
