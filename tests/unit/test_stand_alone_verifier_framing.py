"""A segment that is no EVF1 is told by both verifiers, though the desk signed its bytes (F111)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from appliance.evf.scan import scan_segment
from tests.altered_sessions import renew
from tests.both_verifiers import SEGMENT, Said, built
from tests.sessions import Built

__all__ = ["built"]


FRAMING: dict[str, Callable[[bytes, list[int]], bytes]] = {
    "magic": lambda data, at: b"EVF2" + data[4:],
    "header": lambda data, at: data.replace(b'"seg":0', b'"seg":1', 1),
    "header a list": lambda data, at: data[:8] + b"\0\0\0\x02[]" + data[at[0] - 32 :],
    "header spelling": lambda data, at: data.replace(b'"v":1}', b'"v":1.}', 1),
    "record magic": lambda data, at: data[: at[1]] + b"CHNX" + data[at[1] + 4 :],
    "type": lambda data, at: data[: at[1] + 4] + b"\x09" + data[at[1] + 5 :],
    "key frame flag of INIT": lambda data, at: data[: at[0] + 5] + b"\x01" + data[at[0] + 6 :],
    "unknown flag": lambda data, at: data[: at[1] + 5] + b"\x03" + data[at[1] + 6 :],
    "reserved": lambda data, at: data[: at[1] + 7] + b"\x01" + data[at[1] + 8 :],
    "index": lambda data, at: data[: at[1] + 11] + b"\x07" + data[at[1] + 12 :],
    "length": lambda data, at: data[: at[1] + 12] + b"\xff" + data[at[1] + 13 :],
    "length of END": lambda data, at: data[: at[-1] + 15] + b"\x1f" + data[at[-1] + 16 :],
    "SFrame counter": lambda data, at: data[: at[1] + 24] + b"\x07" + data[at[1] + 25 :],
    "swapped records": lambda data, at: (
        data[: at[1]] + data[at[2] : at[3]] + data[at[1] : at[2]] + data[at[3] :]
    ),
    "END in the middle": lambda data, at: data[: at[2]] + data[at[-1] :] + data[at[2] : at[-1]],
    "after END": lambda data, at: data + b"\0",
    "no END": lambda data, at: data[: at[-1]],
    "cut in a record": lambda data, at: data[:-3],
    "cut in the header": lambda data, at: data[: at[0] - 3],
    "record twice": lambda data, at: data[: at[2]] + data[at[1] :],
}


WORDS = {
    "type": "unknown record",
    "length": "a length that the format does not allow",
    "length of END": "a length that the format does not allow",
    "cut in the header": "file ends inside its header",
    "after END": "no record stands",
    "no END": "file does not end as CLOSED",
}


@pytest.mark.parametrize("kind", FRAMING)
def test_framing_is_checked_though_the_desk_signed_it(
    built: Built, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The file is what the manifest says, but no EVF1 segment that it could be."""
    path = built.segment(SEGMENT)
    with path.open("rb") as stream:
        starts = [record.offset_bytes for record in scan_segment(stream).records]
    renew(built, SEGMENT, FRAMING[kind](path.read_bytes(), starts))
    said = Said(built, capsys)
    assert said.code == 1
    assert f"{SEGMENT}: records: {WORDS.get(kind, '')}" in said.last


def test_outcome_must_be_the_files(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    renew(built, SEGMENT, built.segment(SEGMENT).read_bytes(), outcome="OPEN_ENDED")
    assert f"{SEGMENT}: records" in Said(built, capsys).last
