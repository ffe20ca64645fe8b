"""A whole session is verified and opened in one pass over its bytes; anything else is never taken for whole."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.archive.one_pass import write_whole_video
from appliance.archive.opening import OpenedVideo, SessionKeys
from appliance.archive.session import LocalSession
from appliance.archive.settings import find_config
from appliance.archive.trust import Trust
from appliance.config import ArchiveConfig, load_config
from appliance.errors import EvidenceBroken, NoSpace
from appliance.evf.errors import EvfError
from appliance.evf.format import Header, RecordKind, read_prefix
from appliance.evf.keys import SegmentSecret
from appliance.evf.reader import Outcome, Record, SegmentReader
from appliance.evf.writer import SegmentWriter
from tests.sessions import Built, Plan, build_session, representative

REFUSED = (EvidenceBroken, EvfError, OSError)


class Opened:
    """A session as the command has it before it opens: signatures verified, keys at hand."""

    def __init__(self, built: Built) -> None:
        config = load_config(find_config(built.config, Path.cwd(), Path.home()), ArchiveConfig)
        self._trust = Trust.load(config)
        self.session = LocalSession.load(built.folder, self._trust)
        self.keys = SessionKeys(self.session, representative(1), self._trust)

    def film(self, out: Path) -> OpenedVideo:
        with out.open("wb") as stream:
            return write_whole_video(self.session, self.keys, stream, out, lambda _count: None)


@contextmanager
def altered(path: Path, data: bytes) -> Iterator[None]:
    before = path.read_bytes()
    path.write_bytes(data)
    try:
        yield
    finally:
        path.write_bytes(before)


def test_film_of_many_segments_of_many_sizes(tmp_path: Path) -> None:
    """More segments than run at once; each finds its place, whichever is done first."""
    plan = Plan(segments=11, fragment=lambda second: bytes([second % 251]) * (second * 997 % 50_000))
    built = build_session(tmp_path, plan)
    opened = Opened(built).film(tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == built.film.read_bytes()
    assert opened == OpenedVideo(2 * 11 * 3, built.duration_s * 90_000, ())


def test_segment_that_the_desk_could_not_close_is_in_the_film(tmp_path: Path) -> None:
    built = build_session(tmp_path, Plan(open_ended=frozenset({"0-video-1.evf"})))
    opened = Opened(built).film(tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == built.film.read_bytes()
    assert [note.partition(" ")[0] for note in opened.notes] == ["0-video-1.evf"]


@pytest.mark.parametrize(
    "open_ended", [frozenset(), frozenset({"0-video-0.evf"})], ids=["closed", "open-ended"]
)
def test_no_byte_of_a_segment_can_be_another(tmp_path: Path, open_ended: frozenset[str]) -> None:
    """Header, commitment, each record's clear and sealed part, END; the control is the film of the same session."""
    plan = Plan(epochs=1, segments=1, fragments=2, fragment=lambda _second: b"frame", open_ended=open_ended)
    built = build_session(tmp_path, plan)
    opened, out = Opened(built), tmp_path / "out.mp4"
    opened.film(out)
    path = built.segment("0-video-0.evf")
    data = path.read_bytes()
    for place in range(len(data)):
        flipped = bytearray(data)
        flipped[place] ^= 1
        with altered(path, bytes(flipped)), pytest.raises(REFUSED):
            opened.film(out)
    for whole in (data[:-1], data + b"\0", data[:-60]):
        with altered(path, whole), pytest.raises(REFUSED):
            opened.film(out)
    opened.film(out)


@pytest.mark.parametrize("created", ["2026-11-22T09:00:00.000Z", "2026-11-22T10:00:00.000Z"])
def test_who_holds_the_key_cannot_seal_another_film(tmp_path: Path, created: str) -> None:
    """Records sealed anew under the segment's own key, and a header with another time: the witnessed root refuses."""
    built = build_session(tmp_path)
    opened, path = Opened(built), built.segment("0-video-0.evf")
    forged = sealed_anew(path, opened.keys, created)
    reader = SegmentReader(io.BytesIO(forged), opened.keys.secret_for)
    assert len(list(reader)) == 4
    assert reader.outcome is Outcome.CLOSED
    assert len(forged) == path.stat().st_size
    with altered(path, forged), pytest.raises(EvidenceBroken, match="witnessed root"):
        opened.film(tmp_path / "out.mp4")


@pytest.mark.parametrize("name", ["1-video-1.evf", "0-log-0.evf"])
def test_missing_file_is_no_whole_session(tmp_path: Path, name: str) -> None:
    built = build_session(tmp_path, Plan(observations=({"number": 1, "report": {}},)))
    opened = Opened(built)
    built.segment(name).unlink()
    with pytest.raises(REFUSED):
        opened.film(tmp_path / "out.mp4")


def test_file_that_the_manifest_does_not_name(tmp_path: Path) -> None:
    built = build_session(tmp_path)
    (built.folder / "segments" / "9-video-9.evf").write_bytes(b"")
    with pytest.raises(EvidenceBroken, match="not named in the manifest"):
        Opened(built).film(tmp_path / "out.mp4")


def test_second_init_is_no_film_of_one(tmp_path: Path) -> None:
    plan = Plan(second_init=Plan().init + b"\x00\x00\x00\x08free")
    with pytest.raises(EvidenceBroken, match="different picture settings"):
        Opened(build_session(tmp_path, plan)).film(tmp_path / "out.mp4")


def test_manifest_that_names_fewer_records(tmp_path: Path) -> None:
    """The place of every fragment is reckoned from the manifest: it must not decide what is in the film."""
    built = build_session(tmp_path)
    first = built.manifest.segments[0]
    opened = Opened(built)
    short = replace(first, records=first.records - 1, leaf_runs=((first.leaf_runs[0][0], first.records - 1),))
    manifest = replace(built.manifest, segments=(short, *built.manifest.segments[1:]))
    opened.session = replace(opened.session, manifest=manifest)
    with pytest.raises(EvidenceBroken):
        opened.film(tmp_path / "out.mp4")


def test_full_disk_is_named(tmp_path: Path) -> None:
    opened = Opened(build_session(tmp_path))
    with Path("/dev/full").open("wb", buffering=0) as stream, pytest.raises(NoSpace, match=r"out\.mp4"):
        write_whole_video(opened.session, opened.keys, stream, tmp_path / "out.mp4", lambda _count: None)


def sealed_anew(path: Path, keys: SessionKeys, created: str) -> bytes:
    """The segment with its last fragment replaced, as somebody with S(seg) can write it."""
    data = path.read_bytes()
    header = Header.decode(read_prefix(io.BytesIO(data))[0])
    records: list[Record] = list(SegmentReader(io.BytesIO(data), keys.secret_for))
    secret = SegmentSecret(header.seg, bytearray(keys.secret_for(header)))
    writer = SegmentWriter(replace(header, created=created), secret)
    out = bytearray(writer.prefix)
    for record in records:
        plaintext = record.plaintext if record is not records[-1] else record.plaintext[::-1]
        out += writer.record(RecordKind(record.kind), plaintext, record.time_90k, record.key_frame).data
    return bytes(out + writer.end(records[-1].time_90k).data)
