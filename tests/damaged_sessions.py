"""Sessions whose files were damaged on the desk's disk, and releases that permit it: rightly, wrongly, or not at all.

Each case is a folder that both verifiers can be asked about; none of them names a verifier.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.evf.canonical import canonical
from appliance.evf.scan import scan_segment
from appliance.evf.signed import sign_document
from appliance.protocol import COMMAND_PURPOSE
from tests.altered_sessions import cut, order
from tests.sessions import SID, Built, Plan, Room, build_session, observation

FIRST, SECOND, LAST, LOG_FILE = "0-video-0.evf", "0-video-1.evf", "1-video-1.evf", "0-log-0.evf"
ALL = (FIRST, SECOND, "1-video-0.evf", LAST, LOG_FILE, "1-log-0.evf")  # segments
WRAP = f"{SID}.0.media.evk"
RELEASED = "released so by m.jansen at 2026-11-22T12:10:04.000Z"
DAMAGED = f"damaged on the desk before it was sent, {RELEASED}"
GONE = f"gone from the desk before the rest was sent, {RELEASED}"

PLAN = Plan(
    observations=tuple(observation(number, "head_turned_away", number, number + 1) for number in range(1, 5))
)
DAMAGED_GAP, GONE_GAP = "file damaged on the desk, what is left of it opens", "file gone from the desk"
ROOT = "the root that the room witnessed cannot be computed"

Item = dict[str, Any]


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path, PLAN)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exam.mp4"


def place(built: Built, name: str) -> Path:
    return built.folder / ("wraps" if name.endswith(".evk") else "segments") / name


def flip(built: Built, *names: str, at: int = -1) -> None:
    for name in names:
        data = bytearray(place(built, name).read_bytes())
        data[at] ^= 1
        place(built, name).write_bytes(data)


def remove(built: Built, *names: str) -> None:
    for name in names:
        place(built, name).unlink()


def lengthen(built: Built, name: str) -> None:
    place(built, name).write_bytes(place(built, name).read_bytes() + bytes(512))


def as_it_lies(built: Built, name: str) -> Item:
    """What the desk reports of the file, and what a person may release."""
    path = place(built, name)
    if not path.is_file():
        return {"name": name, "size_bytes": 0, "sha256": None}
    data = path.read_bytes()
    return {"name": name, "size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def permit(built: Built, *names: str) -> None:
    """The controller releases the manifest, and these files as they lie here."""
    permit_items(built, [as_it_lies(built, name) for name in names])


def permit_items(built: Built, damaged: Any, key: Ed25519PrivateKey | None = None, **changes: Any) -> None:
    """The same with any list at all, by any key, with other changes in the order."""
    path = built.folder / "approval.json"
    body = json.loads(path.read_bytes())["body"]
    body["order"] |= {"damaged": damaged, **changes}
    path.write_bytes(canonical(sign_document(COMMAND_PURPOSE, body, key or built.room.controller_key)))


class Damage(NamedTuple):
    """`do` damages these files; `words` say it of each, once that is permitted."""

    names: tuple[str, ...]
    do: Callable[[Built], object]
    words: str = DAMAGED


# In all of them: permitted, it is lost and nothing is broken; not permitted, each of the files is broken.
DAMAGES: dict[str, Damage] = {
    "a bit": Damage((FIRST,), lambda built: flip(built, FIRST)),
    "a bit of the header": Damage((FIRST,), lambda built: flip(built, FIRST, at=30)),
    "cut": Damage((FIRST,), lambda built: cut(built, 40)),
    "cut at a record": Damage((FIRST,), lambda built: cut(built, 0)),
    "longer": Damage((LAST,), lambda built: lengthen(built, LAST)),
    "empty": Damage((LAST,), lambda built: place(built, LAST).write_bytes(b"")),
    "gone": Damage((SECOND,), lambda built: remove(built, SECOND), GONE),
    "log": Damage((LOG_FILE,), lambda built: flip(built, LOG_FILE)),
    "wrap": Damage((WRAP,), lambda built: flip(built, WRAP)),
    "wrap gone": Damage((WRAP,), lambda built: remove(built, WRAP), GONE),
    "several": Damage((FIRST, LAST, WRAP), lambda built: flip(built, FIRST, LAST, WRAP)),
    "all": Damage(ALL, lambda built: remove(built, *ALL), GONE),
}


class Excess(NamedTuple):
    """`do` makes a session with a release of damaged files, which does not excuse what is wrong with `name`."""

    name: str
    do: Callable[[Built], object]
    released: bool = True  # the approval itself holds


def _damaged_and(name: str, then: Callable[[Built], object]) -> Excess:
    """The first file is damaged, and rightly released; then something else happens to another."""

    def do(built: Built) -> None:
        flip(built, FIRST)
        permit(built, FIRST)
        then(built)

    return Excess(name, do)


def _released_wrongly(**how: Any) -> Excess:
    """A permission that would fit, in an approval that does not hold: as if there were none."""

    def do(built: Built) -> None:
        flip(built, FIRST)
        permit_items(built, [as_it_lies(built, FIRST)], **how)

    return Excess("approval.json", do, released=False)


def _other_bytes(built: Built) -> None:
    flip(built, FIRST)
    permit(built, FIRST)
    flip(built, FIRST, at=-2)


def _other_size(built: Built) -> None:
    flip(built, FIRST)
    permit_items(built, [as_it_lies(built, FIRST) | {"size_bytes": 7}])


def _gone_though_damaged_was_permitted(built: Built) -> None:
    flip(built, FIRST)
    permit(built, FIRST)
    place(built, FIRST).unlink()


def _permitted_as_gone(built: Built, then: Callable[[Path], object]) -> None:
    path = place(built, FIRST)
    path.unlink()
    permit(built, FIRST)
    then(path)


def _in_anothers_place(built: Built) -> None:
    """The bytes that were permitted for one file lie in place of another; the one itself is as it should be."""
    whole = place(built, FIRST).read_bytes()
    flip(built, FIRST)
    permit(built, FIRST)
    place(built, SECOND).write_bytes(place(built, FIRST).read_bytes())
    place(built, FIRST).write_bytes(whole)


def _forged(built: Built) -> None:
    """Somebody without the controller's key adds a file to what it released."""
    flip(built, FIRST)
    flip(built, LAST)
    permit(built, LAST)
    path = built.folder / "approval.json"
    document = json.loads(path.read_bytes())
    document["body"]["order"]["damaged"].append(as_it_lies(built, FIRST))
    path.write_bytes(canonical(document))


def _of_another_manifest(built: Built) -> None:
    """The permission was for a manifest that the desk has replaced since."""
    flip(built, FIRST)
    permit(built, FIRST)
    old = (built.folder / "approval.json").read_bytes()
    built.rewrite(candidate_code="C-0815")
    (built.folder / "approval.json").write_bytes(old)


def _of_another_desk(built: Built) -> None:
    flip(built, FIRST)
    permit(built, FIRST)
    said = json.loads((built.folder / "approval.json").read_bytes())["body"]["order"]
    order(built, desk="seat-08", order=said)


# In all of them this file is broken, permission or not, and it is the first that is named.
EXCESSES: dict[str, Excess] = {
    "other bytes": Excess(FIRST, _other_bytes),
    "other size": Excess(FIRST, _other_size),
    "gone though damaged was permitted": Excess(FIRST, _gone_though_damaged_was_permitted),
    "there though gone was permitted": Excess(
        FIRST, lambda built: _permitted_as_gone(built, lambda path: path.write_bytes(b"EVF1"))
    ),
    "empty though gone was permitted": Excess(
        FIRST, lambda built: _permitted_as_gone(built, lambda path: path.touch())
    ),
    "a link to nothing though gone was permitted": Excess(
        FIRST, lambda built: _permitted_as_gone(built, lambda path: path.symlink_to("nowhere"))
    ),
    "a folder though gone was permitted": Excess(
        FIRST, lambda built: _permitted_as_gone(built, lambda path: path.mkdir())
    ),
    "another segment altered": _damaged_and(LAST, lambda built: flip(built, LAST)),
    "another segment gone": _damaged_and(LAST, lambda built: remove(built, LAST)),
    "a wrap altered": _damaged_and(WRAP, lambda built: flip(built, WRAP)),
    "a wrap gone": _damaged_and(WRAP, lambda built: remove(built, WRAP)),
    "a file added": _damaged_and("note.txt", lambda built: (built.folder / "note.txt").touch()),
    "in another's place": Excess(SECOND, _in_anothers_place),
    "released by another key": _released_wrongly(key=Room().controller_key),
    "release of another session": _released_wrongly(sid="ab" * 16),
    "release of other bytes": _released_wrongly(manifest_sha256="00" * 32),
    "a hold": _released_wrongly(kind="hold"),
    "release with more": _released_wrongly(more=1),
    "permission forged": Excess("approval.json", _forged, released=False),
    "release of another manifest": Excess("approval.json", _of_another_manifest, released=False),
    "release of another desk": Excess("approval.json", _of_another_desk, released=False),
}


def _with(**changes: Any) -> Callable[[Item], Any]:
    return lambda item: [item | changes]


# What stands in `damaged`, from the one item that would fit. None of these is a release at all.
MALFORMED: dict[str, Callable[[Item], Any]] = {
    "null": lambda item: None,
    "an object": lambda item: item,
    "text": lambda item: item["name"],
    "empty": lambda item: [],
    "a list of text": lambda item: [item["name"]],
    "a list of null": lambda item: [None],
    "a list of lists": lambda item: [list(item.items())],
    "nothing in it": lambda item: [{}],
    "more in it": _with(cause="disk"),
    **{
        f"no {key}": lambda item, key=key: [{name: item[name] for name in item if name != key}]  # type: ignore[misc]
        for key in ("name", "size_bytes", "sha256")
    },
    "name a number": _with(name=7),
    "name null": _with(name=None),
    "name a list": _with(name=[FIRST]),
    "size text": _with(size_bytes="7"),
    "size null": _with(size_bytes=None),
    "size true": _with(size_bytes=True),
    "size below nothing": _with(size_bytes=-1),
    "size beyond JSON": _with(size_bytes=2**53),
    "SHA-256 a number": _with(sha256=7),
    "SHA-256 empty": _with(sha256=""),
    "SHA-256 short": _with(sha256="ab" * 31),
    "SHA-256 in capitals": lambda item: [item | {"sha256": item["sha256"].upper()}],
    "SHA-256 with a line end": lambda item: [item | {"sha256": item["sha256"] + "\n"}],
    "gone with a size": _with(sha256=None),
    "gone with a size below nothing": _with(sha256=None, size_bytes=-1),
    "gone with false for a size": _with(sha256=None, size_bytes=False),
    "not of the session": lambda item: [item, item | {"name": "9-video-0.evf"}],
    "a path": _with(name=f"segments/{FIRST}"),
    "the manifest": lambda item: [item, item | {"name": "manifest.json"}],
    "the approval": lambda item: [item, item | {"name": "approval.json"}],
    "twice": lambda item: [item, item],
    "twice, once as gone": lambda item: [item, item | {"size_bytes": 0, "sha256": None}],
}


def inside(built: Built, name: str, record: int) -> int:
    """A byte in the sealed part of a record of the undamaged file."""
    with place(built, name).open("rb") as stream:
        found = scan_segment(stream).records[record]
    return found.offset_bytes + found.length_bytes // 2


def film_without(built: Built, *seconds: int) -> bytes:
    film = built.film.read_bytes()
    for second in seconds:
        assert film.count(PLAN.fragment(second)) == 1
        film = film.replace(PLAN.fragment(second), b"")
    return film
