"""Throughput of SegmentWriter against bare AES-256-GCM and SHA-256 over the same bytes; prints one line of JSON.

The bare side does what no encrypted, witnessed recording can do without. Rounds alternate, so that both sides meet
the same machine; the ratio is the median over rounds of writer throughput by bare throughput (1.0 = costs nothing).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import statistics
import time

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from appliance.evf import EpochKey, Header, RecordKind, SegmentWriter

RECORD_BYTES = 300_000  # 2 s at 1.2 Mbit/s
RECORDS = 30  # one segment of 60 s
HEADER = Header(
    sid="00" * 16,
    epoch=0,
    cls="media",
    seg=0,
    track="video",
    codec="avc1.42E01E",
    created="2026-11-22T09:00:00.000Z",
    institution="bench",
    policy_id="bench",
    retain_until="2027-05-22",
    salt=bytes(32),
)


def write_segment(plaintext: bytes) -> float:
    """Seconds for one segment of RECORDS records through the writer, keys and END included."""
    secret = EpochKey.generate().track("video").next_segment()
    start = time.perf_counter()
    writer = SegmentWriter(HEADER, secret)
    for index in range(RECORDS):
        writer.record(RecordKind.FRAGMENT, plaintext, index * 180_000, key_frame=True)
    writer.end(RECORDS * 180_000)
    return time.perf_counter() - start


def bare(plaintext: bytes) -> float:
    """Seconds for as many encrypt_into and SHA-256 calls over as many bytes."""
    key = AESGCM(os.urandom(32))
    out = bytearray(len(plaintext) + 16)
    start = time.perf_counter()
    for index in range(RECORDS):
        key.encrypt_into(index.to_bytes(12, "big"), plaintext, b"", out)
        hashlib.sha256(out).digest()
    return time.perf_counter() - start


def main() -> None:
    """Run and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=31)
    rounds = parser.parse_args().rounds
    plaintext = os.urandom(RECORD_BYTES)
    write_segment(plaintext)
    bare(plaintext)
    writer_s, bare_s = [], []
    for index in range(rounds):
        # Each side goes first as often as the other.
        if index % 2:
            bare_s.append(bare(plaintext))
            writer_s.append(write_segment(plaintext))
        else:
            writer_s.append(write_segment(plaintext))
            bare_s.append(bare(plaintext))
    ratio = statistics.median(b / w for w, b in zip(writer_s, bare_s, strict=True))
    megabytes = RECORD_BYTES * RECORDS / 1e6
    print(
        json.dumps(
            {
                "bench": "evf_write",
                "ratio": round(ratio, 3),
                "writer_mb_per_s": round(megabytes / statistics.median(writer_s)),
                "bare_mb_per_s": round(megabytes / statistics.median(bare_s)),
                "record_bytes": RECORD_BYTES,
                "rounds": rounds,
            }
        )
    )


if __name__ == "__main__":
    main()
