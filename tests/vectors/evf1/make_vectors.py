"""Writes the EVF1 vectors beside it from fixed inputs: `python tests/vectors/evf1/make_vectors.py`.

Segments come out the same again; the .evk does not (HPKE draws an ephemeral key) and is written only if absent.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from appliance.evf import (
    EpochKey,
    Header,
    RecipientSet,
    RecordKind,
    RepresentativeKey,
    SegmentWriter,
    WrapContext,
    secret_at,
    wrap_epoch_key,
)
from appliance.evf.keys import SegmentSecret, derive_segment_keys
from appliance.evf.sframe import derive_key_and_salt

HERE = Path(__file__).parent
SID = "000102030405060708090a0b0c0d0e0f"
K0 = bytes(range(32))
CREATED = "2026-11-22T09:00:00.000Z"
RETAIN_UNTIL = "2027-05-22"
REPRESENTATIVE_SEED = bytes(range(64, 96))
DEVICE_SEED = bytes(range(96, 128))

Plain = list[tuple[RecordKind, bytes, int, bool]]
MEDIA: Plain = [
    (RecordKind.INIT, b"ftyp and moov stand here", 0, False),
    (RecordKind.FRAGMENT, b"moof and mdat, first", 0, True),
    (RecordKind.FRAGMENT, b"", 180_000, False),
    (RecordKind.FRAGMENT, b"moof and mdat, third", 360_000, True),
]
LOG: Plain = [
    (RecordKind.EVENT, b'{"event":"open"}', 0, False),
    (RecordKind.EVENT, b'{"event":"camera_covered"}', 450_000, False),
]


def header(track: str, seg: int) -> Header:
    """The fixed header of one vector."""
    return Header(
        sid=SID,
        epoch=3,
        cls="log" if track == "log" else "media",
        seg=seg,
        track=track,
        codec="json" if track == "log" else "avc1.42E01E",
        created=CREATED,
        institution="example-university",
        policy_id="stat1-2026",
        retain_until=RETAIN_UNTIL,
        salt=hashlib.sha256(f"{track}{seg}".encode()).digest(),
    )


def segment(track: str, seg: int, records: Plain, end_90k: int | None) -> list[bytes]:
    """[HEADER || COMMIT, RECORD, ..., END when `end_90k` is given]."""
    secret = SegmentSecret(seg, bytearray(secret_at(EpochKey(K0), track, seg)))
    writer = SegmentWriter(header(track, seg), secret)
    parts = [writer.prefix, *(writer.record(*record).data for record in records)]
    if end_90k is not None:
        parts.append(writer.end(end_90k).data)
    return parts


def files() -> dict[str, tuple[str, bytes, Plain]]:
    """Name -> (outcome, bytes, the records a reader returns before it stops)."""
    media = segment("video", 9, MEDIA, 540_000)
    other = segment("video", 10, MEDIA, 540_000)
    log = segment("log", 0, LOG, None)
    whole = b"".join(media)
    prefix, init, first, second, third, end = media
    return {
        "media.evf": ("CLOSED", whole, MEDIA),
        "log.evf": ("OPEN_ENDED", b"".join(log), LOG),
        "cut.evf": ("OPEN_ENDED", whole[:-60], MEDIA),
        "cut-in-header.evf": ("CORRUPT", prefix[:100], []),
        "swapped.evf": ("CORRUPT", prefix + init + second + first + third + end, MEDIA[:1]),
        "dropped.evf": ("CORRUPT", prefix + init + second + third + end, MEDIA[:1]),
        "duplicated.evf": ("CORRUPT", prefix + init + first + first + second + third + end, MEDIA[:2]),
        "spliced.evf": ("CORRUPT", prefix + init + other[2] + second + third + end, MEDIA[:1]),
        "wrong-end.evf": ("CORRUPT", b"".join(media[:-1]) + other[-1], MEDIA),
        "after-end.evf": ("CORRUPT", whole + b"\0", MEDIA),
    }


def expected() -> dict[str, object]:
    """Everything an implementer needs to compare step by step; byte strings in hex."""
    keys = []
    for track, seg in (("video", 9), ("log", 0)):
        secret = secret_at(EpochKey(K0), track, seg)
        base_key, commit = derive_segment_keys(secret, header(track, seg).encode())
        key, salt = derive_key_and_salt(base_key, seg)
        keys.append(
            {
                "track": track,
                "seg": seg,
                "segment_secret": secret.hex(),
                "base_key": base_key.hex(),
                "commit": commit.hex(),
                "sframe_key": key.hex(),
                "sframe_salt": salt.hex(),
            }
        )
    return {
        "k0": K0.hex(),
        "keys": keys,
        "files": {
            name: {
                "outcome": outcome,
                "sha256": hashlib.sha256(data).hexdigest(),
                "records": [
                    {
                        "kind": int(kind),
                        "plaintext": plain.hex(),
                        "time_90k": time_90k,
                        "key_frame": key_frame,
                    }
                    for kind, plain, time_90k, key_frame in records
                ],
            }
            for name, (outcome, data, records) in files().items()
        },
        "wrap": {
            "file": f"{SID}.3.media.evk",
            "representative_seed": REPRESENTATIVE_SEED.hex(),
            "representative_kid": RepresentativeKey(REPRESENTATIVE_SEED).kid,
            "device_public_key": _device().public_key().public_bytes_raw().hex(),
        },
    }


def wrap() -> bytes:
    """A new .evk over K(0)."""
    person = RepresentativeKey(REPRESENTATIVE_SEED).representative("Vector Person")
    recipients = RecipientSet("example-university", 7, CREATED, (person,))
    context = WrapContext("example-university", SID, 3, "media", CREATED, "stat1-2026", RETAIN_UNTIL, 7)
    return wrap_epoch_key(EpochKey(K0), context, recipients, _device())


def _device() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(DEVICE_SEED)


def main() -> None:
    """Write all files."""
    for name, (_, data, _) in files().items():
        (HERE / name).write_bytes(data)
    (HERE / "expected.json").write_text(json.dumps(expected(), indent=1) + "\n", encoding="ascii")
    evk = HERE / f"{SID}.3.media.evk"
    if not evk.exists():
        evk.write_bytes(wrap())


if __name__ == "__main__":
    main()
