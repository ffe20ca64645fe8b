"""Builds a whole recorded session as a folder, with the product's own writer, signatures and checkpoint."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from appliance.evf.canonical import canonical
from appliance.evf.format import Header, KeyClass, RecordKind
from appliance.evf.keys import EpochKey, TrackRatchet
from appliance.evf.recipients import RecipientSet, RepresentativeKey, sign_recipient_set
from appliance.evf.wraps import WrapContext, wrap_epoch_key, wrap_name
from appliance.evf.writer import SealedRecord, SegmentWriter
from appliance.evidence.checkpoint import cosign, node_key_name, session_origin, sign_checkpoint
from appliance.evidence.manifest import EventLeaf, Gap, Manifest, SegmentEntry, WrapEntry, sign_manifest
from appliance.evidence.merkle import Frontier, event_leaf
from appliance.protocol import COMMAND_PURPOSE, Command, Release, sign_message

SID = "5e" * 16
INSTITUTION, EXAM, ROOM, DESK = "uni-x", "statistics-1", "room-214", "seat-07"
POLICY_ID, POLICY_VERSION, CANDIDATE = "stat-2026", 3, "C-4711"
RETAIN_UNTIL = "2027-05-22"
STARTED = datetime(2026, 11, 22, 9, 0, tzinfo=UTC)
RATE = 90_000
PASSPHRASE = "correct horse battery staple"
INIT = b"\x00\x00\x00\x10ftypisom\x00\x00\x00\x01" + b"\x00\x00\x00\x08moov"
CREATED = "2026-11-22T09:00:00.000Z"
GAP_CAUSE = "power was lost; the desk restarted"


@dataclass(frozen=True)
class Room:
    """Everybody's keys: the room's CA, one desk, the controller, the institution's root."""

    ca_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    device_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    controller_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    root_key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)

    def ca_certificate(self) -> x509.Certificate:
        return issue_certificate("Room 2.14 CA", self.ca_key, "Room 2.14 CA", self.ca_key, ca=True)

    def device_certificate(self) -> x509.Certificate:
        return issue_certificate(DESK, self.device_key, "Room 2.14 CA", self.ca_key, ca=False)


@functools.cache
def representative(number: int) -> RepresentativeKey:
    """One of several representatives, the same in every test."""
    return RepresentativeKey(bytes([number]) * 32)


@functools.cache
def key_file(number: int) -> bytes:
    """Made once: 600,000 iterations take a third of a second."""
    return representative(number).save(PASSPHRASE)


@functools.cache
def default_room() -> Room:
    return Room()


@dataclass
class Plan:
    """What the session holds; `fragment` gives the plaintext of the fragment that begins at a second."""

    epochs: int = 2
    segments: int = 2  # of video in each epoch
    fragments: int = 3  # in each segment, 2 s each
    gap_s: int = 30  # between two epochs
    fragment: Callable[[int], bytes] = lambda second: f"fragment at {second:06d} s;".encode() * 9
    init: bytes = INIT
    second_init: bytes | None = None
    open_ended: frozenset[str] = frozenset()
    observations: tuple[dict[str, Any], ...] = ()
    unwitnessed: tuple[Gap, ...] = ()
    noted: tuple[dict[str, Any], ...] = ()  # further events in the log of the first epoch
    recipients: tuple[int, ...] = (1,)


@dataclass(frozen=True)
class Built:
    """The folder as `pull` would leave it, and what a test needs beside it."""

    folder: Path
    config: Path
    key: Path
    passphrase: Path
    room: Room
    manifest: Manifest
    film: Path
    duration_s: int

    def names(self) -> list[str]:
        return [entry.name for entry in self.manifest.segments]

    def segment(self, name: str) -> Path:
        return self.folder / "segments" / name

    def wrap(self) -> Path:
        return self.folder / "wraps" / self.manifest.wraps[0].name

    def rewrite(self, room: Room | None = None, **changes: Any) -> None:
        """Sign another manifest and a release of it, as somebody with these keys could."""
        room = room or self.room
        manifest = replace(self.manifest, **changes)
        data = sign_manifest(manifest, room.device_key)
        (self.folder / "manifest.json").write_bytes(data)
        (self.folder / "approval.json").write_bytes(release(data, room.controller_key))

    def arguments(self, command: str, *more: str | Path) -> list[str]:
        """Command line for `open` or `report`."""
        keys = [
            "--key",
            str(self.key),
            "--passphrase-file",
            str(self.passphrase),
            "--config",
            str(self.config),
        ]
        return [command, str(self.folder), *keys, *(str(part) for part in more)]


CARD = {
    "baseline": "usual direction 3 degrees to the picture's left, learned over 60 of 60 s of this session",
    "light": "picture good 92%, too dark 8% of the time",
    "occlusion": "could be assessed 90% of the time; in a good picture, but with the face hidden, cut or unclear: 2%",
    "models": {"face_landmark.tflite": "2efcb4f4de43"},
    "policy": f"{POLICY_ID} v{POLICY_VERSION}",
    "error_rate": "head yaw, mean absolute error: 1.8° (measured on 36 renders <of one generator>)",
    "does_not_show": "what the person looks at or why",
}


def observation(
    number: int, kind: str, start_s: float, end_s: float | None, level: str | None = "yellow", **changes: Any
) -> dict[str, Any]:
    """Plaintext of an EVENT record, as the recorder writes it; `end_s` None: opened and never closed."""
    report: dict[str, Any] = {
        "kind": kind,
        "words": kind.replace("_", " "),
        "phase": "opened" if end_s is None else "closed",
        "start_90k": round(start_s * RATE),
        "end_90k": None if end_s is None else round(end_s * RATE),
        "duration_s": 4.0 if end_s is None else round(end_s - start_s, 3),
        "level": level,
        "technical": False,
        "rule": "yaw over 25 degrees for 4 s",
        "measured": {"yaw_deg": 31.5, "frames": 31},
        "uncertainty": "3.1 degrees of yaw",
    }
    return {"number": number, "report": {**report, **changes}}


def build_session(root: Path, plan: Plan | None = None, room: Room | None = None) -> Built:
    """Write the session below `root`: session/, trust/, archive.toml, the key file, and the film that must come out."""
    plan, room = plan or Plan(), room or default_room()
    folder = root / "session" / SID
    for name in ("segments", "wraps"):
        (folder / name).mkdir(parents=True)
    film = root / "expected.mp4"
    recorder = _Recorder(folder, plan, room, film)
    duration_s = recorder.record()
    manifest = recorder.manifest(duration_s)
    built = Built(
        folder=folder,
        config=_write_trust(root, room, plan),
        key=root / "representative.json",
        passphrase=root / "passphrase",
        room=room,
        manifest=manifest,
        film=film,
        duration_s=duration_s,
    )
    built.key.write_bytes(key_file(1))
    built.passphrase.write_text(PASSPHRASE + "\n")
    built.rewrite()
    return built


def release(manifest_bytes: bytes, controller_key: Ed25519PrivateKey, sid: str = SID) -> bytes:
    """approval.json: the controller's signed command."""
    order = Release(
        sid=sid,
        manifest_sha256=hashlib.sha256(manifest_bytes).hexdigest(),
        approved_by="m.jansen",
        approved_at="2026-11-22T12:10:04.000Z",
    )
    command = Command(room=ROOM, desk=DESK, serial=7, issued="2026-11-22T12:10:04.100Z", order=order)
    return sign_message(COMMAND_PURPOSE, command, controller_key)


class _Recorder:
    def __init__(self, folder: Path, plan: Plan, room: Room, film: Path) -> None:
        self._folder = folder
        self._plan = plan
        self._room = room
        self._film = film
        people = tuple(
            representative(number).representative(f"person {number}") for number in plan.recipients
        )
        self.recipients = RecipientSet(INSTITUTION, 2, CREATED, people)
        self._frontier = Frontier()
        self._leaves = 0
        self._segments: list[SegmentEntry] = []
        self._wraps: list[WrapEntry] = []
        self._events: list[EventLeaf] = []
        self._gaps: list[Gap] = list(plan.unwitnessed)

    def record(self) -> int:
        second = 0
        with self._film.open("wb") as film:
            film.write(self._plan.init)
            for epoch in range(self._plan.epochs):
                if epoch:
                    begin = second * RATE
                    second += self._plan.gap_s
                    self._gaps.append(Gap(begin, second * RATE, GAP_CAUSE, False))
                self._event({"kind": "epoch_open", "epoch": epoch})
                for body in () if epoch else self._plan.noted:
                    self._event(body)
                video, log = (self._track(epoch, *track) for track in (("media", "video"), ("log", "log")))
                for seg in range(self._plan.segments):
                    init = self._plan.second_init if epoch and self._plan.second_init else self._plan.init
                    records: list[tuple[RecordKind, bytes, int]] = [(RecordKind.INIT, init, second)]
                    self._write(epoch, "media", "video", seg, video, self._video(records, film, second))
                    second += 2 * self._plan.fragments
                mine = self._plan.observations[epoch :: self._plan.epochs]
                if mine:
                    events = [(RecordKind.EVENT, canonical(event), second) for event in mine]
                    self._write(epoch, "log", "log", 0, log, iter(events))
        return second

    def _video(
        self, records: list[tuple[RecordKind, bytes, int]], film: Any, second: int
    ) -> Iterator[tuple[RecordKind, bytes, int]]:
        yield from records
        for number in range(self._plan.fragments):
            plaintext = self._plan.fragment(second + 2 * number)
            film.write(plaintext)
            yield RecordKind.FRAGMENT, plaintext, second + 2 * number

    def _track(self, epoch: int, cls: KeyClass, track: str) -> TrackRatchet:
        key = EpochKey.generate()
        context = WrapContext(INSTITUTION, SID, epoch, cls, CREATED, POLICY_ID, RETAIN_UNTIL, 2)
        evk = wrap_epoch_key(key, context, self.recipients, self._room.device_key)
        name = wrap_name(SID, epoch, cls)
        (self._folder / "wraps" / name).write_bytes(evk)
        self._wraps.append(WrapEntry(name, hashlib.sha256(evk).hexdigest(), len(evk)))
        return key.track(track)

    def _write(
        self,
        epoch: int,
        cls: KeyClass,
        track: str,
        seg: int,
        ratchet: TrackRatchet,
        records: Iterator[tuple[RecordKind, bytes, int]],
    ) -> None:
        name = f"{epoch}-{track}-{seg}.evf"
        salt = hashlib.sha256(name.encode()).digest()
        codec = "avc1.42c01f" if track == "video" else "json"
        header = Header(
            SID, epoch, cls, seg, track, codec, CREATED, INSTITUTION, POLICY_ID, RETAIN_UNTIL, salt
        )
        writer = SegmentWriter(header, ratchet.next_segment())
        first, count, start, last = self._leaves, 0, -1, 0
        digest = hashlib.sha256(writer.prefix)
        path = self._folder / "segments" / name
        with path.open("wb") as out:
            out.write(writer.prefix)

            def append(sealed: SealedRecord) -> None:
                out.write(sealed.data)
                digest.update(sealed.data)
                self._frontier.append(sealed.leaf)

            for kind, plaintext, second in records:
                start = second if start < 0 else start
                last = second
                append(writer.record(kind, plaintext, second * RATE, key_frame=kind is RecordKind.FRAGMENT))
                count += 1
            if name not in self._plan.open_ended:
                append(writer.end(last * RATE))
                count += 1
        self._leaves += count
        outcome = "OPEN_ENDED" if name in self._plan.open_ended else "CLOSED"
        end = last + (2 if track == "video" else 0)
        self._segments.append(
            SegmentEntry(
                name=name,
                track=track,
                cls=cls,
                epoch=epoch,
                seg=seg,
                size_bytes=path.stat().st_size,
                sha256=digest.hexdigest(),
                records=count,
                outcome=outcome,
                start_90k=start * RATE,
                end_90k=end * RATE,
                leaf_runs=((first, count),),
            )
        )

    def _event(self, body: dict[str, Any]) -> None:
        self._events.append(EventLeaf(self._leaves, body))
        self._frontier.append(event_leaf(body))
        self._leaves += 1

    def manifest(self, duration_s: int) -> Manifest:
        note = sign_checkpoint(
            session_origin(DESK, SID),
            self._leaves,
            self._frontier.root(),
            self._room.device_key,
            node_key_name(DESK),
        )
        return Manifest(
            institution=INSTITUTION,
            exam=EXAM,
            room=ROOM,
            desk=DESK,
            sid=SID,
            candidate_code=CANDIDATE,
            policy_id=POLICY_ID,
            policy_version=POLICY_VERSION,
            retain_until=RETAIN_UNTIL,
            started=CREATED,
            ended=(STARTED + timedelta(seconds=duration_s)).strftime("%Y-%m-%dT%H:%M:%S.000Z"),
            recipient_set_version=2,
            segments=tuple(self._segments),
            wraps=tuple(self._wraps),
            events=tuple(self._events),
            gaps=tuple(self._gaps),
            lost=(),
            leaves=self._leaves,
            checkpoint=note,
            cosignature=cosign(note, self._room.controller_key, f"room/{ROOM}", int(STARTED.timestamp())),
            chain_pem=(self._room.device_certificate().public_bytes(Encoding.PEM).decode(),),
        )


def _write_trust(root: Path, room: Room, plan: Plan) -> Path:
    trust = root / "trust"
    trust.mkdir()
    (trust / "room-ca.pem").write_bytes(room.ca_certificate().public_bytes(Encoding.PEM))
    for name, key in (("controller.pub", room.controller_key), ("root.pub", room.root_key)):
        (trust / name).write_text(key.public_key().public_bytes_raw().hex() + "\n")
    people = tuple(representative(number).representative(f"person {number}") for number in plan.recipients)
    document = sign_recipient_set(RecipientSet(INSTITUTION, 2, CREATED, people), room.root_key)
    (trust / "recipient-set.json").write_bytes(canonical(document))
    return write_config(root, "http://127.0.0.1:9")


def write_config(root: Path, endpoint: str) -> Path:
    """archive.toml with its credentials file; the trust files lie in trust/."""
    config = root / "archive.toml"
    config.write_text(
        f'institution = "{INSTITUTION}"\nroom_ca = "trust/room-ca.pem"\n'
        'controller_key = "trust/controller.pub"\nroot_key = "trust/root.pub"\n'
        f'[storage]\nendpoint = "{endpoint}"\nregion = "eu-test"\nbucket = "recordings"\n'
    )
    (root / "storage-credentials.toml").write_text(
        'access_key_id = "institution"\nsecret_access_key = "only-for-this-test"\n'
    )
    return config


def issue_certificate(
    subject: str, key: Ed25519PrivateKey, issuer: str, issuer_key: Ed25519PrivateKey, *, ca: bool
) -> x509.Certificate:
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(STARTED - timedelta(days=30))
        .not_valid_after(STARTED + timedelta(days=300))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        .sign(issuer_key, None)
    )
