"""Tries to open closed segments with what lies about: `python -m tests.red_team --loot FOLDER... --pid PID...`.

Loot is searched for secrets in every form that `tests/windows.py` and `texts` below know; each is tried in every role
of the format (ROLES). The answer is one JSON object: what was opened and by what, and what was searched. It knows the
format and the product's code, as an attacker would, and no key but those that it finds.
"""

from __future__ import annotations

import argparse
import hashlib
import hmac
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import ECB

from appliance.evf.errors import EvfError
from appliance.evf.format import MAGIC, PRE_BYTES, TAG_BYTES, Header, chain_next, chain_start
from appliance.evf.reader import Outcome, SegmentReader
from appliance.evf.recipients import RepresentativeKey
from appliance.evf.scan import scan_segment
from appliance.evf.sframe import encode_header
from appliance.evf.wraps import open_wrap
from tests.loot import (
    EMPTY_PAGE,
    Find,
    key_files,
    memory_of,
    passphrases,
    public_keys,
    texts,
    words_of_processes,
)
from tests.windows import windows

ROLES = ("segment secret", "track state", "epoch key", "base key", "AES key", "extract of either derivation",
         "representative's seed", "X25519 half", "representative's key file")  # fmt: skip
MAX_TARGETS = 8
MAX_PASSPHRASES = 24


@dataclass(frozen=True)
class Target:
    """A closed segment. END's plaintext is public (the chain), so the key stream under it is known."""

    path: Path
    header: Header
    salt: bytes
    commit: bytes
    end_header: bytes
    end_pre: bytes
    end_sealed: bytes
    chain: bytes

    @classmethod
    def read(cls, path: Path) -> Target | None:
        with path.open("rb") as stream:
            scan = scan_segment(stream)
            if not scan.ended:
                return None
            stream.seek(0)
            header_bytes = stream.read(scan.prefix_bytes - len(scan.commit))
            stream.seek(scan.records[-1].offset_bytes)
            end = stream.read()
        chain = chain_start(header_bytes, scan.commit)
        for record in scan.records[:-1]:
            chain = chain_next(chain, record.leaf)
        end_header = encode_header(scan.header.seg, scan.records[-1].index)
        salt = hashlib.sha256(header_bytes).digest()
        sealed = end[PRE_BYTES + len(end_header) :]
        return cls(path, scan.header, salt, scan.commit, end_header, end[:PRE_BYTES], sealed, chain)

    def key_stream(self, block: int) -> bytes:
        part = slice(16 * block, 16 * block + 16)
        return bytes(a ^ b for a, b in zip(self.end_sealed[part], self.chain[part], strict=True))


@dataclass
class Attack:
    """Holds the targets and what was opened; each `try_` takes what might be a secret, and where it was found."""

    targets: list[Target]
    wraps: list[bytes] = field(default_factory=list)
    public: set[bytes] = field(default_factory=set)
    opened: dict[tuple[Path, str], str] = field(default_factory=dict)
    tried: int = 0

    def __post_init__(self) -> None:
        self._walk = 1 + max((target.header.seg for target in self.targets), default=0)
        self._tracks = sorted({target.header.track for target in self.targets})
        self._streams = b"".join(target.key_stream(0) for target in self.targets)
        self._tails = {
            target.header.seg: b"SFrame 1.0 Secret key "
            + target.header.seg.to_bytes(8, "big")
            + b"\0\x05\x01"
            for target in self.targets
        }

    def try_secret(self, window: bytes, where: str) -> None:
        """32 bytes (and the 32 that follow, for what is 64 long) in every role inside a recording."""
        self.tried += 1
        secret = window[:32]
        self._try_segment_secret(secret, "segment secret", where, self.targets)
        self._try_state(secret, "track state", where)
        for track in self._tracks:
            self._try_track(secret, track, "epoch key", where)
        self._try_extract(window, "extract of either derivation", where)
        self._try_base_extract(hmac.digest(b"", secret, "sha512"), "base key", where)
        self._try_base_extract(window, "extract of either derivation", where)
        self._try_aes_key(secret, "AES key", where)

    def try_representative(self, window: bytes, where: str) -> None:
        """The same as a representative's private key: X-Wing's seed, or its X25519 half, without which none opens."""
        seed = window[:32]
        expanded = hashlib.shake_256(seed).digest(96)
        if _x25519_public(expanded[64:]) in self.public:
            self._open_wraps(RepresentativeKey(seed), "representative's seed", where)
        if _x25519_public(seed) in self.public:
            self.opened.setdefault((Path("wraps"), "X25519 half"), where)

    def try_key_file(self, data: bytes, passphrase: str, where: str) -> bool:
        """A representative's key file under one passphrase."""
        try:
            key = RepresentativeKey.load(data, passphrase)
        except EvfError:
            return False
        self._open_wraps(key, "representative's key file", where)
        return True

    def _try_state(self, state: bytes, role: str, where: str) -> None:
        """As K_t(n) of any n: a ratchet of which nobody knows how far it has gone."""
        for steps in range(self._walk):
            later = [target for target in self.targets if target.header.seg >= steps]
            self._try_segment_secret(_expand(state, b"EVF1 seg"), role, where, later)
            state = _expand(state, b"EVF1 next")

    def _try_track(self, epoch_key: bytes, track: str, role: str, where: str) -> None:
        state = _expand(epoch_key, b"EVF1 track" + track.encode())
        for seg in range(self._walk):
            named = [
                target for target in self.targets if (target.header.track, target.header.seg) == (track, seg)
            ]
            self._try_segment_secret(_expand(state, b"EVF1 seg"), role, where, named)
            state = _expand(state, b"EVF1 next")

    def _try_segment_secret(self, secret: bytes, role: str, where: str, targets: list[Target]) -> None:
        for target in targets:
            extract = hmac.digest(target.salt, secret, "sha512")
            if _expand(extract, b"EVF1 segment v1", 64)[32:] == target.commit and _reads(target, secret):
                self.opened.setdefault((target.path, role), where)

    def _try_extract(self, extract: bytes, role: str, where: str) -> None:
        both = _expand(extract, b"EVF1 segment v1", 64)
        for target in self.targets:
            if both[32:] == target.commit:
                self.opened.setdefault((target.path, role), where)

    def _try_base_extract(self, extract: bytes, role: str, where: str) -> None:
        for tail in self._tails.values():
            self._try_aes_key(hmac.digest(extract, tail, "sha512")[:32], role, where)

    def _try_aes_key(self, key: bytes, role: str, where: str) -> None:
        """AES-GCM's first key stream block is AES(nonce || 2): backwards, the 2 shows that the key is right."""
        blocks = Cipher(AES256(key), ECB()).decryptor().update(self._streams)
        for place, target in enumerate(self.targets):
            block = blocks[16 * place : 16 * place + 16]
            if block[12:] == b"\0\0\0\2" and _unseals(target, key, block[:12]):
                self.opened.setdefault((target.path, role), where)

    def _open_wraps(self, key: RepresentativeKey, role: str, where: str) -> None:
        for evk in self.wraps:
            try:
                secret = bytes(open_wrap(evk, key, None).secret)
            except EvfError:
                continue
            for track in self._tracks:
                self._try_track(secret, track, role, where)


def _expand(key: bytes, info: bytes, length: int = 32) -> bytes:
    return hmac.digest(key, info + b"\1", "sha512")[:length]


def _x25519_public(private: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()


def _reads(target: Target, secret: bytes) -> bool:
    with target.path.open("rb") as stream:
        reader = SegmentReader(stream, lambda _header: secret)
        for _ in reader:
            pass
    return reader.outcome is Outcome.CLOSED


def _unseals(target: Target, key: bytes, nonce: bytes) -> bool:
    assert len(target.end_sealed) == 32 + TAG_BYTES
    try:
        return (
            AESGCM(key).decrypt(nonce, target.end_sealed, target.end_header + target.end_pre) == target.chain
        )
    except InvalidTag:
        return False


# --- the whole attack -------------------------------------------------------------------------------------------------


def attack(folders: list[Path], pids: list[int], all_processes: bool, seconds: float) -> dict[str, Any]:
    """Search and try everything; `complete` is False when the time was too short for that."""
    begun = time.monotonic()
    files = [path for folder in folders for path in sorted(folder.rglob("*")) if path.is_file()]
    tool = Attack(closed_segments(files))
    tool.wraps = [path.read_bytes() for path in files if path.suffix == ".evk"]
    tool.public = public_keys(files)
    words = words_of_processes() if all_processes else []
    key_file_tries = 0
    for path in key_files(files):
        for passphrase in passphrases(files, words)[:MAX_PASSPHRASES]:
            key_file_tries += 1
            if tool.try_key_file(path.read_bytes(), passphrase, str(path)):
                break
    seen: set[bytes] = set()
    searched: dict[str, int] = {"files": 0, "file_bytes": 0, "memory_bytes": 0, "long_runs_left_out_bytes": 0}
    complete = True
    for find in _finds(files, words, pids):
        place = "memory_bytes" if find.memory else "file_bytes"
        searched[place] += 0 if find.decoded else len(find.data)
        searched["files"] += not (find.memory or find.decoded)
        rows, left_out = windows(find.data, step=find.step, leave_long_runs=find.leave_long_runs)
        searched["long_runs_left_out_bytes"] += left_out
        for row in rows:
            window = row.tobytes()
            if window in seen:
                continue
            seen.add(window)
            tool.try_secret(window, find.where)
            if find.decoded or not (find.memory or find.leave_long_runs):
                tool.try_representative(window, find.where)
            if tool.tried % 256 == 0 and time.monotonic() - begun > seconds:
                complete = False
                break
        if not complete:
            break
    return {
        "targets": sorted(str(target.path) for target in tool.targets),
        "opened": [
            {"segment": str(path), "as": role, "where": where} for (path, role), where in tool.opened.items()
        ],
        "complete": complete,
        "secrets_tried": tool.tried,
        "key_file_tries": key_file_tries,
        "wraps": len(tool.wraps),
        "public_keys": len(tool.public),
        "searched": searched,
        "seconds": round(time.monotonic() - begun, 1),
    }


def closed_segments(files: list[Path]) -> list[Target]:
    """One target for each closed segment, however many copies of it there are."""
    found: dict[bytes, Target] = {}
    for path in files:
        with path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                continue
        target = Target.read(path)
        if target is not None:
            found.setdefault(target.commit, target)
    return sorted(found.values(), key=lambda target: (target.header.seg, str(target.path)))[:MAX_TARGETS]


def _finds(files: list[Path], words: list[Find], pids: list[int]) -> Iterator[Find]:
    for path in files:
        data = path.read_bytes()
        segment = data.startswith(MAGIC)
        find = Find(str(path), data, step=8 if segment else 1, leave_long_runs=segment or len(data) > 1 << 16)
        yield find
        yield from texts(find)
    for word in words:
        yield word
        yield from texts(word)
    pages = {EMPTY_PAGE}
    for pid in pids:
        for find in memory_of(pid, pages):
            yield find
            yield from texts(find)


def main(arguments: list[str]) -> None:
    """Print the answer as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--loot", type=Path, action="append", default=[])
    parser.add_argument("--pid", type=int, action="append", default=[])
    parser.add_argument("--all-processes", action="store_true")
    parser.add_argument("--seconds", type=float, default=60)
    given = parser.parse_args(arguments)
    print(json.dumps(attack(given.loot, given.pid, given.all_processes, given.seconds), indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
