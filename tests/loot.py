"""Where the red team finds things: files, processes' words and memory, and keys written as text in either."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key

HEX = re.compile(rb"(?:[0-9a-fA-F]{2}){32,}")
BASE64 = re.compile(rb"[A-Za-z0-9+/_-]{43,}={0,2}")
PEM = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s]+-----END [A-Z ]*PRIVATE KEY-----")
# Of a text in memory only what is as long as one key or two; a library's tables look like base64 as well.
MAX_TEXT_BYTES = 4096
MAX_TEXT_IN_MEMORY_BYTES = 132
PAGE_BYTES = 4096
EMPTY_PAGE = hash(bytes(PAGE_BYTES))


@dataclass(frozen=True)
class Find:
    """Bytes and where they were; `step`: at which alignment a key in them may begin."""

    where: str
    data: bytes
    step: int = 1
    leave_long_runs: bool = False
    memory: bool = False
    decoded: bool = False


def texts(find: Find) -> Iterator[Find]:
    """Keys that stand in it as PEM, hex or base64, decoded."""
    for match in PEM.finditer(find.data):
        raw = _private_bytes(match[0])
        if raw is not None:
            yield Find(f"{find.where} (PEM)", raw, memory=find.memory, decoded=True)
    longest = MAX_TEXT_IN_MEMORY_BYTES if find.memory else MAX_TEXT_BYTES
    for match in HEX.finditer(find.data):
        if len(match[0]) <= longest:
            data = bytes.fromhex(match[0].decode())
            yield Find(f"{find.where} (hex)", data, _step(find), memory=find.memory, decoded=True)
    for match in BASE64.finditer(find.data):
        text = match[0].rstrip(b"=").translate(bytes.maketrans(b"-_", b"+/"))
        if len(text) > longest:
            continue
        try:
            data = base64.b64decode(text[: len(text) - (len(text) % 4 == 1)] + b"==")
        except binascii.Error:
            continue
        yield Find(f"{find.where} (base64)", data, _step(find), memory=find.memory, decoded=True)


def memory_of(pid: int, seen: set[int]) -> Iterator[Find]:
    """All private writable memory of a living process: heap, stacks, anonymous mappings, libraries' variables.

    Pages that are empty or stood the same elsewhere (their hashes are in `seen`) are passed over.
    """
    with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, _, _, _, *name = line.split(maxsplit=5)
            if not rights.startswith("rw") or rights.endswith("s"):
                continue
            begin, end = (int(address, 16) for address in span.split("-"))
            memory.seek(begin)
            try:
                data = memory.read(end - begin)
            except OSError:  # went away, or a device's
                continue
            where = f"memory of {pid} at {span} {''.join(name)}".strip()
            for first, last in _fresh(data, seen):
                # What lies across a page's edge belongs to both.
                part = data[max(first - 64, 0) : last + 64]
                yield Find(where, part, step=8, leave_long_runs=True, memory=True)


def _fresh(data: bytes, seen: set[int]) -> Iterator[tuple[int, int]]:
    """Spans of pages not met before."""
    first: int | None = None
    for at in range(0, len(data), PAGE_BYTES):
        number = hash(data[at : at + PAGE_BYTES])
        if number in seen:
            if first is not None:
                yield first, at
                first = None
            continue
        seen.add(number)
        first = at if first is None else first
    if first is not None:
        yield first, len(data)


def words_of_processes() -> list[Find]:
    """What root sees of all processes: their command lines and environments."""
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        for name in ("cmdline", "environ"):
            try:
                data = (folder / name).read_bytes()
            except OSError:  # ended meanwhile
                continue
            found.append(Find(f"{name} of process {folder.name}", data))
    return found


def key_files(files: list[Path]) -> list[Path]:
    """Secrets under a passphrase, in the product's own envelope."""
    return [path for path in files if b"invigil key file" in path.read_bytes()[:4096]]


def passphrases(files: list[Path], words: list[Find]) -> list[str]:
    """Whole short text files and values of environment variables with a telling name."""
    found: list[str] = []
    for path in files:
        if path.stat().st_size <= 256:
            try:
                found.append(path.read_text().strip())
            except UnicodeDecodeError:
                continue
    for word in words:
        for match in re.finditer(rb"(?i)pass\w*=([^\0]+)", word.data):
            found.append(match[1].decode(errors="replace"))
    return list(dict.fromkeys(text for text in found if text and "\n" not in text))


def public_keys(files: list[Path]) -> set[bytes]:
    """Both halves of the public keys that recordings are wrapped for, from every recipient set."""
    found: set[bytes] = set()
    for path in files:
        if path.name == "recipient-set.json":
            for person in json.loads(path.read_text())["body"]["representatives"]:
                whole = base64.b64decode(person["public_key"])
                found |= {whole[:1184], whole[1184:]}
    return found


def _step(find: Find) -> int:
    return 8 if find.memory else 1


def _private_bytes(pem: bytes) -> bytes | None:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    if isinstance(key, Ed25519PrivateKey | X25519PrivateKey):
        return key.private_bytes_raw()
    if isinstance(key, EllipticCurvePrivateKey):
        return key.private_numbers().private_value.to_bytes(key.key_size // 8, "big")
    return None
