"""SFrame (RFC 9605): the header and cipher suite 0x0005, AES_256_GCM_SHA512_128, with whole 128-bit tags."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from appliance.evf.errors import CorruptSegment, LimitExceeded

CIPHER_SUITE = 0x0005
KEY_BYTES = 32
NONCE_BYTES = 12


def encode_header(kid: int, ctr: int) -> bytes:
    """Config byte, then KID and CTR in as few bytes as hold them (RFC 9605, 4.3); both below 2**64."""
    kid_code, kid_bytes = _encode_value(kid)
    ctr_code, ctr_bytes = _encode_value(ctr)
    return bytes([kid_code << 4 | ctr_code]) + kid_bytes + ctr_bytes


def derive_key_and_salt(base_key: bytes | bytearray, kid: int) -> tuple[bytearray, bytes]:
    """sframe_key (32 bytes) and sframe_salt (12 bytes) for one KID (RFC 9605, 4.4.2)."""
    tail = kid.to_bytes(8, "big") + CIPHER_SUITE.to_bytes(2, "big")
    key = bytearray(KEY_BYTES)
    HKDF(SHA512(), KEY_BYTES, b"", b"SFrame 1.0 Secret key " + tail).derive_into(base_key, key)
    salt = HKDF(SHA512(), NONCE_BYTES, b"", b"SFrame 1.0 Secret salt " + tail).derive(base_key)
    return key, salt


class SframeKey:
    """One segment's AES-256-GCM key under one KID. The caller owns the rule that a counter is used once."""

    def __init__(self, base_key: bytes | bytearray, kid: int) -> None:
        key, salt = derive_key_and_salt(base_key, kid)
        self.kid = kid
        self._aead = AESGCM(key)
        self._salt = int.from_bytes(salt, "big")
        key[:] = bytes(len(key))

    def nonce(self, ctr: int) -> bytes:
        """sframe_salt XOR counter (RFC 9605, 4.4.3)."""
        return (self._salt ^ ctr).to_bytes(NONCE_BYTES, "big")

    def seal_into(
        self,
        ctr: int,
        header: bytes,
        metadata: bytes,
        plaintext: bytes | bytearray | memoryview,
        out: memoryview,
    ) -> None:
        """Write ciphertext and tag (16 bytes) into `out`; AAD = SFrame header || metadata."""
        self._aead.encrypt_into(self.nonce(ctr), plaintext, header + metadata, out)

    def open_into(
        self, ctr: int, header: bytes, metadata: bytes, sealed: bytes | memoryview, out: memoryview
    ) -> None:
        """Write the plaintext into `out`, 16 bytes shorter; CorruptSegment when the tag does not match.

        What stands in `out` after an error is worth nothing.
        """
        try:
            self._aead.decrypt_into(self.nonce(ctr), sealed, header + metadata, out)
        except InvalidTag as error:
            raise CorruptSegment(
                "record does not authenticate", "it was altered or the key is another"
            ) from error


def _encode_value(value: int) -> tuple[int, bytes]:
    if not 0 <= value < 2**64:
        raise LimitExceeded("SFrame number is out of range")
    if value < 8:
        return value, b""
    length = (value.bit_length() + 7) // 8
    return 8 | (length - 1), value.to_bytes(length, "big")
