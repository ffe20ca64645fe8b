"""The key ladder: K(0) per epoch and class, one ratchet a track, one secret a segment (FORMAT.md, Keys).

Secrets live in bytearrays so that they can be overwritten; CPython may hold short-lived copies inside a call.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

from appliance.evf.errors import EvfError, LimitExceeded
from appliance.evf.format import MAX_SEGMENTS, check_track

SECRET_BYTES = 32


class EpochKey:
    """K(0) of one (session, epoch, class); `erase` as soon as its wraps are durable and its tracks made."""

    def __init__(self, secret: bytes | bytearray) -> None:
        if len(secret) != SECRET_BYTES:
            raise EvfError("epoch key is not 32 bytes")
        self._secret = bytearray(secret)
        self._erased = False

    @classmethod
    def generate(cls) -> EpochKey:
        """A new random key, read straight into its buffer: the bytes that os.urandom gives cannot be overwritten."""
        key = cls(bytes(SECRET_BYTES))
        os.getrandom(1)  # waits for the kernel's first seed, which /dev/urandom does not (random(4))
        with Path("/dev/urandom").open("rb", buffering=0) as source:
            if source.readinto(key.secret) != SECRET_BYTES:
                raise EvfError("operating system gave no random key")
        return key

    @property
    def secret(self) -> bytearray:
        """The living 32 bytes, not a copy; EvfError once erased."""
        if self._erased:
            raise EvfError("epoch key is erased")
        return self._secret

    def track(self, name: str) -> TrackRatchet:
        """K_t(0) = HKDF-Expand-SHA512(K(0), "EVF1 track" || track, 32) as a ratchet at segment 0."""
        check_track(name)
        return TrackRatchet(name, _expand(self.secret, b"EVF1 track" + name.encode()))

    def erase(self) -> None:
        """Overwrite K(0)."""
        _overwrite(self._secret)
        self._erased = True


@dataclass
class SegmentSecret:
    """S(seg): opens one segment of one track."""

    seg: int
    secret: bytearray

    def erase(self) -> None:
        """Overwrite S(seg)."""
        _overwrite(self.secret)


class TrackRatchet:
    """Walks one way: what it gave for a closed segment cannot be had from it again (F083)."""

    def __init__(self, name: str, state: bytearray) -> None:
        self.name = name
        self._state: bytearray | None = state
        self._next_seg = 0

    def next_segment(self) -> SegmentSecret:
        """S(i) of the next segment; advances K(i) to K(i+1) and overwrites K(i)."""
        if self._state is None:
            raise EvfError("track ratchet is erased")
        if self._next_seg >= MAX_SEGMENTS:
            raise LimitExceeded(f"track has more than {MAX_SEGMENTS} segments")
        secret = SegmentSecret(self._next_seg, _expand(self._state, b"EVF1 seg"))
        self._step()
        return secret

    def skip_to(self, seg: int) -> None:
        """Advance without giving the secrets between; EvfError for a segment already passed."""
        if seg < self._next_seg:
            raise EvfError("track ratchet cannot go back")
        if seg >= MAX_SEGMENTS:
            raise LimitExceeded(f"track has more than {MAX_SEGMENTS} segments")
        while self._next_seg < seg:
            self._step()

    def erase(self) -> None:
        """Overwrite the state; no further segment can be had."""
        if self._state is not None:
            _overwrite(self._state)
            self._state = None

    def _step(self) -> None:
        if self._state is None:
            raise EvfError("track ratchet is erased")
        following = _expand(self._state, b"EVF1 next")
        _overwrite(self._state)
        self._state = following
        self._next_seg += 1


def secret_at(k0: EpochKey, track: str, seg: int) -> bytes:
    """S(seg) for a reader that holds K(0); costs `seg` HKDF steps (about 2 us each)."""
    ratchet = k0.track(track)
    ratchet.skip_to(seg)
    secret = ratchet.next_segment()
    ratchet.erase()
    return bytes(secret.secret)


def derive_segment_keys(secret: bytes | bytearray, header_bytes: bytes) -> tuple[bytearray, bytes]:
    """(B, C), SFrame base key and COMMIT: HKDF-SHA512(S, salt=SHA256(HEADER), "EVF1 segment v1", 64)."""
    both = bytearray(64)
    salt = hashlib.sha256(header_bytes).digest()
    HKDF(SHA512(), 64, salt, b"EVF1 segment v1").derive_into(secret, both)
    base_key, commit = both[:32], bytes(both[32:])
    _overwrite(both)
    return base_key, commit


def _expand(secret: bytearray, info: bytes) -> bytearray:
    out = bytearray(SECRET_BYTES)
    HKDFExpand(SHA512(), SECRET_BYTES, info).derive_into(secret, out)
    return out


def _overwrite(secret: bytearray) -> None:
    secret[:] = bytes(len(secret))
