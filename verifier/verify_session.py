"""Verifies the folder of one recorded exam session: without the product that recorded it, without a key that opens it.

    python verify_session.py SESSION_DIR --room-ca room-ca.pem --controller controller.pub [--root root.pub]

One file; needs Python 3.11 and `cryptography`, and shares no line with the product. FORMAT is docs/format.md of the
project; RFC 6962 is Certificate Transparency (Merkle trees); C2SP is c2sp.org: signed-note, tlog-checkpoint,
tlog-cosignature.

Two things must come from elsewhere than the session's folder, for everything rests on them: the room's CA certificate
(it says which desks are the room's) and the room controller's public key (it witnessed the recording while it was
made, and released it). A third, the institution's root key, is needed only where keys were wrapped anew after the
recording, for other people than the desk sealed it for. Exit code: 0 the session is whole, 1 it is not, 2 it could
not be checked.
"""

# Words. Desk: the device at one seat that recorded. Room controller: the computer of the room that all desks report to.
# Manifest: the desk's signed list of everything in the session. Record: one piece of footage, encrypted; a segment is a
# file of them, one minute long. Leaf: the SHA-256 of one record, or of one event of the desk's log. Root: one SHA-256
# that all leaves lead to. Checkpoint: the desk's signed word on number and root of the leaves; cosigned by the room
# controller, it was witnessed. Wrap: a file with a key that opens segments, sealed for the people who may open them.
#
# Contents; the file follows this order, each part under a line `# --- number`. `verify_...` and `tell_...` print lines,
# `check_...` and `read_...` refuse.
#   1  The whole           the steps in their order, exit code and last line
#   2  Manifest            is it signed by the desk that it names, and is that desk the room's
#   3  Account             does it say of every leaf what it is, once; does the desk's checkpoint say the same
#   4  Witness             did the room controller cosign that checkpoint
#   5  Release             is it the institution's session, and did the room controller release exactly this manifest;
#                          which of its files may be damaged
#   6  Segments            is every file there, unaltered, of this session, with whole records in their order
#   7  Wraps               is every key file there; were those that are gone replaced by people who may
#   8  Keys wrapped anew   is a file that replaces wraps signed, and does it replace exactly this session's
#   9  Witnessed root      do all records and events lead to the root that was witnessed
#  10  What is missing     what the desk's own manifest shows as lost, without a key, not recorded, or without a picture
#  11  Nothing added       is every file of the folder named in the manifest
#  12  Lines of output     how a line is printed, how a time is spelled
#  13  JSON, signatures    one spelling of a document, what is signed, base64, times
#  14  Fields              which fields each document holds

from __future__ import annotations

import argparse
import base64
import hashlib
import io
import json
import re
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

Json = dict[str, Any]  # a JSON object
Result = TypeVar("Result")

RATE_HZ = 90_000  # all times of a session count from its start in this unit (FORMAT, Layout)


class Problem(Exception):
    """Something is not as it should be; the text says what."""


def require(condition: object, problem: str) -> None:
    if not condition:
        raise Problem(problem)


# --- 1  The whole


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Verify the folder of one recorded session.")
    parser.add_argument("folder", type=Path, metavar="SESSION_DIR")
    parser.add_argument("--room-ca", type=Path, required=True, help="certificate of the room's CA (PEM)")
    parser.add_argument(
        "--controller", type=Path, required=True, help="the room controller's public key (hex)"
    )
    parser.add_argument("--institution", help="whose session this should be")
    parser.add_argument(
        "--root", type=Path, help="the institution's root key (hex), where keys were wrapped anew"
    )
    given = parser.parse_args(arguments)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # Names may be in letters that the terminal does not have.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        room_ca = x509.load_pem_x509_certificate(given.room_ca.read_bytes())
        controller = read_public_key(given.controller)
        root_key = read_public_key(given.root) if given.root else None
        found = verify(given.folder, room_ca, controller, given.institution, root_key)
    except (OSError, ValueError, x509.InvalidVersion) as error:
        write(f"session was not checked: {error}")
        return 2
    wrong = found.broken + found.lost  # a declared loss never stands before what nobody declared
    if not wrong:
        write(f"session is whole: {found.span}")
        return 0
    when, name, text = wrong[0]
    more = f"; and {len(wrong) - 1} more" if len(wrong) > 1 else ""
    write(f"session is not whole: {when}  {name}: {text}{more}")
    return 1


def read_public_key(path: Path) -> Ed25519PublicKey:
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(path.read_text("ascii").strip()))


def verify(
    folder: Path,
    room_ca: x509.Certificate,
    controller: Ed25519PublicKey,
    institution: str | None = None,
    root_key: Ed25519PublicKey | None = None,
) -> Findings:
    """All steps, in the order of the sections. A refusal in 2 or 3 is the end; after any other the rest still runs."""
    found = Findings()
    if not (folder / "manifest.json").is_file():  # nor a pipe, which would never end
        raise FileNotFoundError(f"{folder} has no manifest.json")
    manifest_bytes = (folder / "manifest.json").read_bytes()
    signed = verify_manifest(found, manifest_bytes, room_ca)
    if signed is None:  # nothing that it names can be relied on
        return found
    manifest, desk_key = signed
    witnessed = verify_account(found, manifest, desk_key)
    if witnessed is None:  # nor the numbers that the leaves have in it
        return found
    checkpoint, root = witnessed
    verify_witness(found, manifest, checkpoint, controller)
    verify_institution(found, manifest, institution)
    release = verify_release(found, folder, manifest, manifest_bytes, controller)
    leaves = leaves_of_log(manifest) | verify_segments(found, folder, manifest, release)
    rewraps = verify_wraps(found, folder, manifest, release, root_key)
    known = leaves_beside_damage(found, folder, manifest, release, root)
    verify_root(found, manifest, leaves, known, root)
    tell_what_is_missing(found, manifest)
    verify_nothing_added(found, folder, manifest, release, rewraps)
    return found


# --- 2  Manifest


def verify_manifest(
    found: Findings, data: bytes, room_ca: x509.Certificate
) -> tuple[Json, Ed25519PublicKey] | None:
    """Proves that a desk of this room signed the manifest; None where not. Else (manifest, the desk's key)."""
    signed = found.check(found.span, "manifest.json: signature and certificate", read_manifest, data, room_ca)
    if signed is not None:
        found.span = span_of_all(signed[0])
    return signed


def read_manifest(data: bytes, room_ca: x509.Certificate) -> tuple[Json, Ed25519PublicKey]:
    """(manifest, the desk's key): signed by the desk named in it (FORMAT, Evidence), in the one spelling."""
    document = parse_json(data)
    manifest = require_fields(document.get("body"), MANIFEST, "manifest")
    key = device_key(manifest, room_ca)
    signed_body(document, "manifest", key)
    require(canonical(document) == data, "it is not in canonical form")
    require(manifest["v"] == 1, "it has another version than 1")
    for name, wanted in ENTRIES.items():
        for item in manifest[name]:
            require_fields(item, wanted, f"an entry of {name}")
    return manifest, key


# What Python and `cryptography` raise at values and certificates that are not formed as they should be.
UNUSABLE = (
    *(KeyError, IndexError, AttributeError, ValueError, TypeError, UnsupportedAlgorithm),
    *(x509.ExtensionNotFound, x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType),
)


def device_key(manifest: Json, room_ca: x509.Certificate) -> Ed25519PublicKey:
    """The desk's key, if the room's CA issued its certificate for this desk and both were valid at the end."""
    try:
        device = x509.load_pem_x509_certificate(manifest["chain_pem"][0].encode("ascii"))
        device.verify_directly_issued_by(room_ca)
        roles = [each.extensions.get_extension_for_class(x509.BasicConstraints) for each in (room_ca, device)]
        names = [name.value for name in device.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = device.public_key()
        ended = datetime.strptime(manifest["ended"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except InvalidSignature as error:
        raise Problem("the desk's certificate was not issued by this room's CA") from error
    except UNUSABLE as error:
        raise Problem("the desk's certificate or the session's end cannot be used") from error
    is_ca = [role.value.ca for role in roles]
    require(is_ca == [True, False], "the desk's certificate or the CA's has another role")
    spelled = f"{ended:%Y-%m-%dT%H:%M:%S}.{ended.microsecond // 1000:03d}Z"
    require(spelled == manifest["ended"], "the session's end is not in its one spelling")
    require(names == [manifest["desk"]], "the desk's certificate is another desk's")
    if not isinstance(key, Ed25519PublicKey):
        raise Problem("the desk's certificate holds another kind of key")
    for each in (device, room_ca):
        valid = each.not_valid_before_utc <= ended <= each.not_valid_after_utc
        require(valid, "a certificate was not valid when the session ended")
    return key


# --- 3  Account


def verify_account(found: Findings, manifest: Json, desk_key: Ed25519PublicKey) -> tuple[str, bytes] | None:
    """Proves that every leaf stands in the manifest once, and that the desk signed a checkpoint of as many leaves.

    None where not, else (the checkpoint's text, its root).
    """
    found.check(found.span, "manifest.json: account of all records", check_account, manifest)
    checkpoint = found.check(found.span, "manifest.json: checkpoint", read_checkpoint, manifest, desk_key)
    return None if found.broken else checkpoint


def check_account(manifest: Json) -> None:
    """Files have plain names, each its own; every leaf is exactly one record, event or declared loss."""
    entries = manifest["segments"] + manifest["wraps"]
    names = [entry["name"] for entry in entries]
    plain = all(re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,200}", name) for name in names)
    require(plain and len(set(names)) == len(names), "it names a file twice or in a wrong form")
    digests = [entry["sha256"] for entry in entries] + [lost["leaf"] for lost in manifest["lost"]]
    require(all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests), "a digest has a wrong form")
    runs = [[item["index"], 1] for item in manifest["events"] + manifest["lost"]]
    for entry in manifest["segments"]:
        runs += leaf_runs(entry)
    following = 0
    for first, count in sorted(runs):
        exact = first == following and count > 0
        require(exact, f"it does not say what leaf {following} is, or says it twice")
        following += count
    require(following == manifest["leaves"], f"it accounts for {following} of {manifest['leaves']} leaves")


def leaf_runs(segment: Json) -> list[list[int]]:
    """[first, count] of the leaves that are this segment's records, one pair for each unbroken run of numbers."""
    name, runs = segment["name"], segment["leaf_runs"]
    formed = all(type(run) is list and [type(number) for number in run] == [int, int] for run in runs)
    right = formed and sum(count for _, count in runs) == segment["records"]
    require(right, f"count of {name} is wrong")
    possible = segment["outcome"] in ("CLOSED", "OPEN_ENDED") and segment["start_90k"] <= segment["end_90k"]
    require(possible, f"it gives no possible outcome or span for {name}")
    return list(runs)


def read_checkpoint(manifest: Json, key: Ed25519PublicKey) -> tuple[str, bytes]:
    """(text, root): the desk's signed word that this session's log has so many leaves under this root."""
    text, _, signatures = manifest["checkpoint"].rpartition("\n\n")
    text += "\n"
    require(signatures.endswith("\n"), "the checkpoint's last line has no end")
    # C2SP tlog-checkpoint: origin, size, root, a line each; no further lines (FORMAT, Evidence).
    lines = text.split("\n")
    root = decode_base64(lines[2] if len(lines) > 2 else "")
    name = f"node/{manifest['desk']}"
    wanted = f"{name}/session/{manifest['sid']}\n{manifest['leaves']}\n{base64.b64encode(root).decode()}\n"
    require(text == wanted and len(root) == 32, "the checkpoint is of another session or number of leaves")
    for line in signatures[:-1].split("\n"):
        signer, key_hash, signature = note_line(line)
        if (signer, key_hash) == (name, note_key_hash(name, ED25519, key)):
            require_signature(key, signature, text.encode(), "the checkpoint")
            return text, root
    raise Problem("the checkpoint is not signed by the desk")


ED25519, COSIGNATURE_V1 = 1, 4  # C2SP signed-note: how a signature line was made


def note_line(line: str) -> tuple[str, bytes, bytes]:
    """C2SP signed-note: "— name base64(4 bytes of key hash || signature)" -> (name, key hash, the rest)."""
    match = re.fullmatch("— ([!-*,-~]+) ([A-Za-z0-9+/=]+)", line)
    if not match:
        raise Problem("a signature line of the checkpoint is malformed")
    blob = decode_base64(match[2])
    return match[1], blob[:4], blob[4:]


def note_key_hash(name: str, algorithm: int, key: Ed25519PublicKey) -> bytes:
    """C2SP signed-note: SHA-256(name || 0x0A || algorithm || public key)[:4]."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + key.public_bytes_raw()).digest()[:4]


# --- 4  Witness


def verify_witness(found: Findings, manifest: Json, checkpoint: str, controller: Ed25519PublicKey) -> None:
    """Proves that the room controller saw this log at its end: whoever changes it later needs that key as well."""
    name = "manifest.json: cosignature"
    found.check(found.span, name, check_cosignature, manifest, checkpoint, controller)


def check_cosignature(manifest: Json, checkpoint: str, controller: Ed25519PublicKey) -> str:
    """The room controller witnessed this very checkpoint (C2SP tlog-cosignature, cosignature/v1)."""
    require(manifest["cosignature"], "the room controller did not cosign it: the end was never witnessed")
    name, key_hash, blob = note_line(manifest["cosignature"].removesuffix("\n"))
    ours = key_hash == note_key_hash(name, COSIGNATURE_V1, controller) and len(blob) == 8 + 64
    require(ours, "the cosignature is of another key than the room controller's")
    time_s = int.from_bytes(blob[:8], "big")
    message = f"cosignature/v1\ntime {time_s}\n{checkpoint}".encode()
    require_signature(controller, blob[8:], message, "the room controller")
    return f"by {name}"


# --- 5  Release


def verify_institution(found: Findings, manifest: Json, institution: str | None) -> None:
    """Refuses another institution's session, where the reader said whose it should be."""
    if institution is not None and manifest["institution"] != institution:
        text = f"session belongs to institution {manifest['institution']}"
        found.fail("broken", found.span, "manifest.json", text)


def verify_release(
    found: Findings, folder: Path, manifest: Json, manifest_bytes: bytes, controller: Ed25519PublicKey
) -> Json:
    """Proves that the room controller released exactly this recording; refuses a release of any other.

    The order that released it; {} where there is none that holds, and then no file may be damaged.
    """
    path = folder / "approval.json"
    try:
        release = read_approval(path, manifest, manifest_bytes, controller)
    except Problem as problem:
        found.fail("broken", found.span, "approval.json", str(problem))
        return {}
    count = len(release.get("damaged", []))
    files = f"; {count} {'file' if count == 1 else 'files'} of it as damaged on the desk" if count else ""
    found.say("ok", found.span, "approval.json", f"released {release_words(release)}{files}")
    return release


def read_approval(path: Path, manifest: Json, manifest_bytes: bytes, controller: Ed25519PublicKey) -> Json:
    """approval.json: the order in the controller's signed command that releases exactly these bytes of a manifest."""
    require(path.is_file(), "file is missing")
    data = path.read_bytes()
    document = parse_json(data)
    command = signed_body(document, "command", controller)
    require(canonical(document) == data, "it is not in canonical form")
    order: Json = require_fields(command, COMMAND, "command")["order"]
    require_fields(order, RELEASE_OF_DAMAGED if "damaged" in order else RELEASE, "release")
    require(order["kind"] == "release", "it is no release")
    said = (command["room"], command["desk"], order["sid"])
    require(said == (manifest["room"], manifest["desk"], manifest["sid"]), "it releases another session")
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    require(order["manifest_sha256"] == digest, "it releases another manifest of this session")
    if "damaged" in order:
        check_damaged(order["damaged"], manifest)
    return order


MAX_DAMAGED = 4096


def check_damaged(damaged: list[Any], manifest: Json) -> None:
    """Files of the manifest, each once, with size and SHA-256 as they lay on the desk, or neither: it was gone."""
    require(0 < len(damaged) <= MAX_DAMAGED, "its list of damaged files is empty or too long")
    unnamed = {entry["name"] for entry in manifest["segments"] + manifest["wraps"]}
    for item in damaged:
        gone = type(item) is dict and item.get("sha256") is None
        require_fields(item, GONE_FILE if gone else DAMAGED_FILE, "damaged file")
        formed = item["size_bytes"] == 0 if gone else re.fullmatch("[0-9a-f]{64}", item["sha256"])
        possible = formed and 0 <= item["size_bytes"] < 2**53
        require(possible, "a damaged file's size or SHA-256 has a wrong form")
        known = item["name"] in unnamed
        require(known, "it names a damaged file twice, or one that the manifest does not name")
        unnamed.remove(item["name"])


def released_damage(path: Path, entry: Json, release: Json) -> str:
    """What happened to a file that is not the manifest's but exactly what the release permits; else "".

    It is a loss that somebody declared before the rest left the desk, and never a whole file.
    """
    permitted = [item for item in release.get("damaged", []) if item["name"] == entry["name"]]
    if not permitted or lies_as(path, entry) or not lies_as(path, permitted[0]):
        return ""
    gone = permitted[0]["sha256"] is None
    what = "gone from the desk before the rest was sent" if gone else "damaged on the desk before it was sent"
    return f"{what}, released so {release_words(release)}"


def lies_as(path: Path, item: Json) -> bool:
    """The file has this size and SHA-256; where that is null, nothing is in its place."""
    if item["sha256"] is None:
        return not (path.exists() or path.is_symlink())
    try:
        return check_bytes(path, item)
    except Problem:
        return False


def release_words(release: Json) -> str:
    return f"by {release['approved_by']} at {release['approved_at']}"


# --- 6  Segments


def verify_segments(found: Findings, folder: Path, manifest: Json, release: Json) -> dict[int, bytes]:
    """Proves that each segment is byte for byte what the desk signed, and that its records are whole and in order.

    {number in the log: leaf} of the records of all segments that are.
    """
    leaves: dict[int, bytes] = {}
    for entry in manifest["segments"]:
        path, when = folder / "segments" / entry["name"], span(entry["start_90k"], entry["end_90k"])
        if damage := released_damage(path, entry, release):
            found.fail("lost", when, entry["name"], damage)
            continue
        if not found.check(when, f"{entry['name']}: size, SHA-256", check_bytes, path, entry):
            continue
        records = found.check(when, f"{entry['name']}: records", record_leaves, path, manifest, entry)
        if records:
            numbers = [first + step for first, count in entry["leaf_runs"] for step in range(count)]
            leaves |= dict(zip(numbers, records, strict=True))
    return leaves


def check_bytes(path: Path, entry: Json) -> bool:
    """Size and SHA-256 are the manifest's; True."""
    require(path.is_file(), "file is missing")
    size_bytes, wanted = path.stat().st_size, entry["size_bytes"]
    require(size_bytes == wanted, f"file has {size_bytes} bytes, manifest says {wanted}")
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    require(digest == entry["sha256"], "file was altered: its SHA-256 is not the manifest's")
    return True


# FORMAT, Layout and Reading
MAX_HEADER_BYTES, MAX_PLAINTEXT_BYTES, MAX_RECORDS = 4096, 16 * 2**20, 2**20
PRE_BYTES, TAG_BYTES, CHAIN_BYTES, COMMIT_BYTES = 24, 16, 32, 32
INIT, FRAGMENT, EVENT, END = 1, 2, 3, 0xFF
CODE = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
HEADER_FORMS = {
    "sid": "[0-9a-f]{32}",
    "class": "media|log|identity",
    "track": "[a-z0-9][a-z0-9_-]{0,31}",
    "codec": "[A-Za-z0-9][A-Za-z0-9.,+/;=_-]{0,63}",
    "institution": CODE,
    "policy": CODE,
    "salt": "[0-9a-f]{64}",
}


def record_leaves(path: Path, manifest: Json, entry: Json) -> list[bytes]:
    """Leaf hash of each record, SHA-256(0x00 || RECORD) (RFC 6962, 2.1).

    Refuses a file of another segment, records that are not whole or not in order, and bytes behind the last one.
    """
    leaves: list[bytes] = []
    ended = False
    with path.open("rb") as stream:
        check_header(stream, manifest, entry)
        while pre := stream.read(PRE_BYTES):
            index = len(leaves)
            here = f"where record {index} belongs"
            require(len(pre) == PRE_BYTES and pre[:4] == b"CHNK" and not ended, f"no record stands {here}")
            kind, plain_bytes = read_pre(pre, index, here)
            start = sframe_start(entry["seg"], index)
            sframe_bytes = len(start) + plain_bytes + TAG_BYTES
            rest = stream.read(sframe_bytes)
            same = int.from_bytes(pre[8:12], "big") == index and rest.startswith(start)
            require(same, f"another record stands {here}")
            require(len(rest) == sframe_bytes, f"the file ends {here}")
            leaves.append(hashlib.sha256(b"\0" + pre + rest).digest())
            ended = kind == END
    right = ended == (entry["outcome"] == "CLOSED") and len(leaves) == entry["records"]
    require(right, f"file does not end as {entry['outcome']} with {entry['records']} records")
    return leaves


def read_pre(pre: bytes, index: int, here: str) -> tuple[int, int]:
    """(type, plain_len) of PRE: CHNK type:1 flags:1 reserved:2 index:4 plain_len:4 time:8 (FORMAT, Layout)."""
    kind, flags, plain_bytes = pre[4], pre[5], int.from_bytes(pre[12:16], "big")
    require(kind in (INIT, FRAGMENT, EVENT, END) and index < MAX_RECORDS, f"unknown record {here}")
    highest_flags = 1 if kind == FRAGMENT else 0  # starts with a key frame
    require(pre[6:8] == b"\0\0" and flags <= highest_flags, f"reserved bits are set {here}")
    allowed = plain_bytes == CHAIN_BYTES if kind == END else plain_bytes <= MAX_PLAINTEXT_BYTES
    require(allowed, f"a length that the format does not allow stands {here}")
    return kind, plain_bytes


def sframe_start(segment: int, index: int) -> bytes:
    """What SFRAME begins with (RFC 9605, 4.3): the segment's number as KID, the record's index as CTR."""
    (kid_code, kid), (ctr_code, ctr) = sframe_number(segment), sframe_number(index)
    return bytes([kid_code << 4 | ctr_code]) + kid + ctr


def sframe_number(value: int) -> tuple[int, bytes]:
    """RFC 9605, 4.3: below 8 in the config byte itself, else its length there and the fewest bytes behind it."""
    if value < 8:
        return value, b""
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return 8 | (len(data) - 1), data


def check_header(stream: BinaryIO, manifest: Json, entry: Json) -> None:
    """HEADER and COMMIT are of this session and segment (FORMAT, Layout); leaves the stream at the first record."""
    fixed = stream.read(12)
    length = int.from_bytes(fixed[8:], "big")
    require(fixed[:8] == b"EVF1\r\n\x1a\n" and length <= MAX_HEADER_BYTES, "file is not an EVF1 segment")
    data = stream.read(length)
    found = parse_json(data)
    header = {name: entry[name] for name in ("epoch", "class", "seg", "track")}
    header |= {"v": 1, "sid": manifest["sid"], "institution": manifest["institution"]}
    header["policy"] = {"id": manifest["policy_id"], "retain_until": manifest["retain_until"]}
    header |= {name: found.get(name) for name in ("codec", "created", "salt")}
    same = canonical(header) == data
    require(same, "file is of another segment, session, institution, policy or retention date")
    for name, form in HEADER_FORMS.items():
        value = header["policy"]["id"] if name == "policy" else header[name]
        require(type(value) is str and re.fullmatch(form, value), f"header's {name} has a wrong form")
    require(0 <= header["epoch"] < 2**32 and 0 <= header["seg"] < 2**20, "a header's number is out of range")
    check_moment(header["created"])
    check_day(header["policy"]["retain_until"])
    require(len(stream.read(COMMIT_BYTES)) == COMMIT_BYTES, "file ends inside its header")


# --- 7  Wraps


def verify_wraps(
    found: Findings, folder: Path, manifest: Json, release: Json, root_key: Ed25519PublicKey | None
) -> list[str]:
    """Proves that each key file is there and unaltered, or was erased by people who wrapped its key anew.

    Names of the files with keys wrapped anew; those that prove nothing are reported and stand for nothing.
    """
    rewraps, erased = read_rewraps(folder, manifest, root_key)
    for entry in manifest["wraps"]:
        name, path = entry["name"], folder / "wraps" / entry["name"]
        when = span_of_wrap(manifest, name)
        if name in erased and not (path.exists() or path.is_symlink()):
            found.say("ok", when, name, "erased when it was replaced")
        elif damage := released_damage(path, entry, release):
            found.fail("lost", when, name, damage)
        else:
            found.check(when, f"{name}: size, SHA-256", check_bytes, path, entry)
    for name, valid, words in rewraps:
        if valid:
            found.say("ok", found.span, name, words)
        else:
            found.fail("broken", found.span, name, words)
    return [name for name, _, _ in rewraps]


def span_of_wrap(manifest: Json, name: str) -> str:
    """What nobody opens without <sid>.<epoch>.<class>.evk: the segments of that epoch and class."""
    sid = manifest["sid"]
    opened = [each for each in manifest["segments"] if name == f"{sid}.{each['epoch']}.{each['class']}.evk"]
    if not opened:
        return span_of_all(manifest)
    return span(min(each["start_90k"] for each in opened), max(each["end_90k"] for each in opened))


# --- 8  Keys wrapped anew (FORMAT, Keys wrapped anew)


def read_rewraps(
    folder: Path, manifest: Json, root_key: Ed25519PublicKey | None
) -> tuple[list[tuple[str, bool, str]], set[str]]:
    """([(file's name, valid, words about it)], names of the wraps that had to go, as the newest valid file says)."""
    rewraps: list[tuple[str, bool, str]] = []
    erased: set[str] = set()
    newest = 0
    for path in sorted((folder / "wraps").glob("*.r*.evk")):
        match = re.fullmatch(r"([0-9a-f]{32})\.r[1-9][0-9]{0,9}\.evk", path.name)
        if path.is_symlink() or not match or match[1] != manifest["sid"]:
            continue  # told under 11
        try:
            version, gone, words = read_rewrap(path, manifest, root_key)
        except (Problem, *UNUSABLE) as problem:
            rewraps.append((path.name, False, f"is no re-wrap of this session: {problem}"))
            continue
        rewraps.append((path.name, True, words))
        if version > newest:
            erased, newest = gone, version
    return rewraps, erased


def read_rewrap(path: Path, manifest: Json, root_key: Ed25519PublicKey | None) -> tuple[int, set[str], str]:
    """(version, erased names, words), if somebody of a recipient set that the institution's root signed made it."""
    if root_key is None:
        raise Problem("keys were wrapped anew; who did it cannot be checked without --root")
    require(path.is_file(), "it is no file")
    data = path.read_bytes()
    document = parse_json(data)
    require(canonical(document) == data, "it is not in canonical form")
    body = require_fields(document.get("body"), REWRAP, "re-wrap")
    people = read_people(body["recipient_set"], root_key)
    signers = [
        person
        for person in people["representatives"]
        if key_id(decode_base64(person["signing_key"])) == document.get("key")
    ]
    require(signers, "it is signed by nobody of its recipient set")
    signing_key = decode_base64(signers[0]["signing_key"])
    require(len(signing_key) == 32, "a signing key has the wrong length")
    signed_body(document, "rewrap", Ed25519PublicKey.from_public_bytes(signing_key))
    check_rewrap(path.name, body, people, manifest)
    version, names = people["version"], ", ".join(person["name"] for person in people["representatives"])
    words = f"keys re-wrapped for recipient set {version} ({names}) by {signers[0]['name']} on {body['at']}"
    if body["removed"]:
        words += f"; removed: key {', '.join(kid[:8] for kid in body['removed'])}"
    return version, {item["name"] for item in body["replaces"] if item["erased"]}, words


def read_people(recipient_set: Json, root_key: Ed25519PublicKey) -> Json:
    """The set of people that the institution's root signed; each person's key id is that of the key."""
    people = require_fields(signed_body(recipient_set, "recipient-set", root_key), RECIPIENT_SET, "set")
    for person in people["representatives"]:
        require_fields(person, PERSON, "representative")
        own = person["kid"] == key_id(decode_base64(person["public_key"]))
        require(own, "a key id does not belong to its key")
    return people


MAX_REWRAPPED, SEALED_BYTES = 4096, 1088 + 32 + 32 + 16  # FORMAT, Keys and Keys wrapped anew


def check_rewrap(name: str, body: Json, people: Json, manifest: Json) -> None:
    """It is of this session: it replaces exactly the wraps that the manifest names, key by key, for everybody."""
    sid, institution, version = manifest["sid"], manifest["institution"], people["version"]
    of_session = (body["sid"], body["institution"], people["institution"]) == (sid, institution, institution)
    require(of_session and name == f"{sid}.r{version}.evk", "it is of another session or recipient set")
    require(body["v"] == 1 and version >= manifest["recipient_set_version"], "version is unknown or too old")
    check_moment(body["at"])
    longest = max(len(body["replaces"]), len(body["removed"]), len(body["keys"]))
    require(longest <= MAX_REWRAPPED, "a list is too long")
    replaced = replaced_files(body["replaces"])
    members = sorted(person["kid"] for person in people["representatives"])
    kids = all(re.fullmatch("[0-9a-f]{32}", kid) for kid in body["removed"])
    require(kids and not set(members) & set(body["removed"]), "somebody is removed who stands in the set")
    same = all(replaced.get(entry["name"]) == entry["sha256"] for entry in manifest["wraps"])
    require(same, "it does not replace the wraps that the manifest names")
    missing = {entry["name"] for entry in manifest["wraps"]}
    for item in body["keys"]:
        place = place_of_key(item, members, version, manifest)
        require(place in missing, "it holds other keys than the session has")
        missing.remove(place)
    require(not missing, "it holds other keys than the session has")


def replaced_files(replaces: list[Json]) -> dict[str, str]:
    """{name: SHA-256} of the files that it replaces."""
    for item in replaces:
        require_fields(item, REPLACED, "replaced file")
        formed = re.fullmatch(r"[0-9a-f]{32}\.[A-Za-z0-9.]{1,64}\.evk", item["name"])
        require(formed and re.fullmatch("[0-9a-f]{64}", item["sha256"]), "a replaced file has a wrong form")
    replaced = {item["name"]: item["sha256"] for item in replaces}
    require(len(replaced) == len(replaces), "it replaces a file twice")
    return replaced


def place_of_key(item: Json, members: list[str], version: int, manifest: Json) -> str:
    """Name of the desk's wrap whose key this is; it is of this session and sealed for exactly the set's people."""
    require_fields(item, WRAPPED_KEY, "wrapped key")
    context = require_fields(item["context"], CONTEXT, "wrap context")
    check_moment(context["created"])
    right = context["recipient_set_version"] == version and all(
        context[field] == manifest[field] for field in ("sid", "institution", "policy_id", "retain_until")
    )
    for wrap in item["wraps"]:
        require_fields(wrap, WRAP, "wrap")
        right = right and len(decode_base64(wrap["sealed"])) == SEALED_BYTES
    right = right and sorted(wrap["kid"] for wrap in item["wraps"]) == members
    require(right, "a key in it is of another session or for other people")
    return f"{manifest['sid']}.{context['epoch']}.{context['class']}.evk"


# --- 9  Witnessed root


def leaves_of_log(manifest: Json) -> dict[int, bytes]:
    """{number in the log: leaf} of the desk's events, and of the records that it says it lost (FORMAT, Evidence)."""
    leaves = {}
    for item in manifest["events"]:
        leaves[item["index"]] = hashlib.sha256(b"\0" + canonical(item["body"])).digest()
    for item in manifest["lost"]:
        leaves[item["index"]] = bytes.fromhex(item["leaf"])
    return leaves


def leaves_beside_damage(
    found: Findings, folder: Path, manifest: Json, release: Json, root: bytes
) -> dict[int, bytes]:
    """leaves.bin, which goes with damaged files: every leaf of the session, as the witnessed root proves; else {}."""
    path, name = folder / "leaves.bin", "leaves.bin"
    if "damaged" not in release or not path.is_file():
        return {}
    size_bytes = path.stat().st_size
    data = path.read_bytes() if size_bytes == 32 * manifest["leaves"] else b""
    leaves = [data[place : place + 32] for place in range(0, len(data), 32)]
    if size_bytes != len(data) or merkle_root(leaves) != root:
        # Nobody signed them: this is no worse than a session without them.
        found.fail(
            "lost", found.span, name, "these leaves do not lead to the witnessed root and prove nothing"
        )
        return {}
    found.say("ok", found.span, name, "all leaves, they lead to the witnessed root")
    return dict(enumerate(leaves))


def verify_root(
    found: Findings, manifest: Json, leaves: dict[int, bytes], known: dict[int, bytes], root: bytes
) -> None:
    """Proves that the session is what the room controller witnessed: nothing changed, left out or moved since.

    `known` leaves stand for those of files that were released as damaged, and for no others.
    """
    name, count = "witnessed root", manifest["leaves"]
    lost = {file for _, file, _ in found.lost}  # up to here only what was released as damaged
    entries = [entry for entry in manifest["segments"] if entry["name"] in lost]
    damaged = sum(entry["records"] for entry in entries)
    if known:
        runs = [run for entry in entries for run in entry["leaf_runs"]]
        leaves = leaves | {
            number: known[number] for first, many in runs for number in range(first, first + many)
        }
        damaged = 0
    if len(leaves) + damaged != count:
        found.fail("broken", found.span, name, "cannot be computed: records are missing")
    elif damaged:
        words = (
            "cannot be computed without the damaged files: only the desk's signature speaks for the others"
        )
        found.fail("lost", found.span, name, words)
    elif merkle_root([leaves[index] for index in range(count)]) != root:
        found.fail("broken", found.span, name, "records and events do not lead to it")
    else:
        found.say("ok", found.span, name, f"{count} records and events lead to it")


def merkle_root(leaves: list[bytes]) -> bytes:
    """RFC 6962, 2.1: SHA-256(0x01 || left || right), split at the largest power of two below the number of leaves."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


# --- 10  What is missing


def tell_what_is_missing(found: Findings, manifest: Json) -> None:
    """Tells what the recording is without. Only a lost record or key makes it not whole: that was there once."""
    for item in manifest["lost"]:
        when = span(item["time_90k"], item["time_90k"])
        found.fail("lost", when, item["name"], f"the desk itself says that it lost a record: {item['cause']}")
    for name, (start_90k, end_90k, words) in keyless(manifest).items():
        found.fail("lost", span(start_90k, end_90k), name, words)
    for gap in manifest["gaps"]:
        what = "recorded without a witness" if gap["unwitnessed"] else "not recorded"
        found.say("gap", span(gap["start_90k"], gap["end_90k"]), what, gap["cause"])
    for start_90k, end_90k, words in holes(manifest):
        found.say("gap", span(start_90k, end_90k), "not recorded", words)
    for start_90k, end_90k, words in noted(manifest["events"]):
        found.say("note", span(start_90k, end_90k), "recorded, not as promised", words)


Noted = tuple[int, int, str]  # start and end in units of RATE_HZ, words
PICTURE_FINDINGS = ("black", "covered", "frozen", "undecodable", "unchecked")


def keyless(manifest: Json) -> dict[str, Noted]:
    """{name of a wrap that the manifest lacks: what it would open}: records of an epoch and class, without a key.

    Keys wrapped anew do not help: they are exactly those of the wraps in the manifest (section 8).
    """
    wraps = {entry["name"] for entry in manifest["wraps"]}
    found: dict[str, Noted] = {}
    for each in manifest["segments"]:
        name = f"{manifest['sid']}.{each['epoch']}.{each['class']}.evk"
        if name in wraps or not each["records"]:
            continue
        what = "footage" if each["class"] == "media" else each["class"]
        words = f"no key is left for epoch {each['epoch']}: its {what} cannot be opened"
        start, end, _ = found.get(name, (each["start_90k"], each["end_90k"], words))
        found[name] = min(start, each["start_90k"]), max(end, each["end_90k"]), words
    return found


def holes(manifest: Json) -> Iterator[Noted]:
    """Spans without video that no gap names: over 3 s at the start, over half a second later (FORMAT, Certificate)."""
    # A segment without records has no times: it says 0 to 0.
    video = [each for each in manifest["segments"] if each["track"] == "video" and each["records"]]
    if not video:
        yield 0, 0, "there is no footage at all"
        return
    named = [gap for gap in manifest["gaps"] if not gap["unwitnessed"]]
    covered_90k, allowed_90k = 0, 3 * RATE_HZ
    for start_90k, end_90k in sorted((each["start_90k"], each["end_90k"]) for each in video + named):
        if start_90k - covered_90k > allowed_90k:
            yield covered_90k, start_90k, "there is no footage, and the desk names no cause"
        covered_90k, allowed_90k = max(covered_90k, end_90k), RATE_HZ // 2


def noted(events: list[Json]) -> list[Noted]:
    """Events picture and clock_step, in order of time; touching spans of one finding are one."""
    bodies = [event["body"] for event in events]
    clock_steps = [clock_step(body) for body in bodies if body.get("kind") == "clock_step"]
    pictures = [picture(body) for body in bodies if body.get("kind") == "picture"]
    readable = [each for each in pictures if each[2] in PICTURE_FINDINGS]
    unreadable = [each for each in pictures if each[2] not in PICTURE_FINDINGS]
    return sorted(clock_steps + unreadable + joined(readable))


def clock_step(body: Json) -> Noted:
    """No footage is missing, but the times of day on either side of it do not fit together."""
    at, by_ms = body.get("at_90k"), body.get("by_ms")
    if whole_number(at) and whole_number(by_ms) and by_ms != 0:
        return at, at, f"clock set by {by_ms / 1000:+.1f} s"
    return 0, 0, "clock step that cannot be read"


def picture(body: Json) -> Noted:
    """Footage is there and shows nothing, or nobody looked whether it does."""
    start, end = body.get("from_90k"), body.get("to_90k")
    finding: Any = body.get("finding")
    if finding in PICTURE_FINDINGS and whole_number(start) and whole_number(end) and start <= end:
        return start, end, finding
    return 0, 0, "picture finding that cannot be read"


def joined(pictures: list[Noted]) -> list[Noted]:
    """With spans of one finding that touch made one: the desk writes at least one a minute while it lasts."""
    spans: list[Noted] = []
    newest: dict[str, int] = {}  # finding: place in `spans` of its last one
    for start, end, finding in pictures:
        last = newest.get(finding)
        if last is not None and spans[last][0] <= start <= spans[last][1]:
            spans[last] = (spans[last][0], max(spans[last][1], end), finding)
        else:
            newest[finding] = len(spans)
            spans.append((start, end, finding))
    return spans


def whole_number(value: object) -> TypeGuard[int]:
    """Session times are within a century of its start."""
    return type(value) is int and abs(value) <= 284_018_400_000_000


# --- 11  Nothing added


def verify_nothing_added(
    found: Findings, folder: Path, manifest: Json, release: Json, rewraps: list[str]
) -> None:
    """Proves that the folder holds only what the desk signed and what was looked at above; names what else it holds."""
    named = {"manifest.json", "approval.json"}
    if "damaged" in release and (folder / "leaves.bin").is_file():
        named.add("leaves.bin")
    named |= {f"segments/{entry['name']}" for entry in manifest["segments"]}
    named |= {f"wraps/{entry['name']}" for entry in manifest["wraps"]} | {f"wraps/{name}" for name in rewraps}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in named and (path.is_symlink() or not path.is_dir()):
            found.fail("broken", found.span, name, "file is not named in the manifest")


# --- 12  Lines of output


class Findings:
    """Prints a line per check and remembers what was not as it should be: (span, name, text)."""

    def __init__(self) -> None:
        self.broken: list[tuple[str, str, str]] = []
        self.lost: list[tuple[str, str, str]] = []  # says the desk, or who released it
        self.span = "whole session"  # in hours and minutes once the manifest has been read

    def say(self, state: str, when: str, name: str, text: str) -> None:
        write(f"{state:8}{when:19}{name}  {text}")

    def fail(self, state: str, when: str, name: str, text: str) -> None:
        (self.lost if state == "lost" else self.broken).append((when, name, text))
        self.say(state, when, name, text)

    def check(self, when: str, name: str, step: Callable[..., Result], *arguments: object) -> Result | None:
        """The step's result, or None after a Problem; a result in words is printed."""
        try:
            result = step(*arguments)
        except Problem as problem:
            self.fail("broken", when, name, str(problem))
            return None
        self.say("ok", when, name, result if isinstance(result, str) else "")
        return result


def write(line: str) -> None:
    """A line of output; names and words from the folder cannot begin another one, nor command the terminal."""
    sys.stdout.write("".join(letter if letter.isprintable() else "?" for letter in line) + "\n")


def span_of_all(manifest: Json) -> str:
    return span(0, max((entry["end_90k"] for entry in manifest["segments"]), default=0))


def span(start_90k: int, end_90k: int) -> str:
    """hh:mm:ss-hh:mm:ss from the session's start; the end is rounded up."""
    return f"{clock(start_90k // RATE_HZ)}-{clock(-(-end_90k // RATE_HZ))}"


def clock(second: int) -> str:
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


# --- 13  JSON, signatures (FORMAT, JSON)


def parse_json(data: bytes) -> Json:
    try:
        value = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Problem("it is not JSON") from error
    if type(value) is not dict:
        raise Problem("it is not a JSON object")
    return value


def canonical(value: object) -> bytes:
    """The one spelling that is hashed and signed: sorted keys, no spaces, ASCII."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise Problem("it holds a value that has no canonical form") from error


def require_fields(item: Any, wanted: dict[str, type], what: str) -> Json:
    """The item, if it is an object with exactly these fields (section 14)."""
    if type(item) is not dict or {name: type(value) for name, value in item.items()} != wanted:
        raise Problem(f"{what} has unknown, missing or mistyped fields")
    return item


def signed_body(document: Json, purpose: str, key: Ed25519PublicKey) -> Any:
    """The body of {"body", "purpose", "key", "signature"}, if this key signed it for this purpose."""
    require_fields(document, DOCUMENT, "signed document")
    require(document["purpose"] == purpose, f"it is not signed as {purpose}")
    require(document["key"] == key_id(key.public_bytes_raw()), "it is signed by another key")
    message = b"invigil signed document v1\0" + purpose.encode() + b"\0" + canonical(document["body"])
    require_signature(key, decode_base64(document["signature"]), message, purpose)
    return document["body"]


def require_signature(key: Ed25519PublicKey, signature: bytes, message: bytes, what: str) -> None:
    try:
        key.verify(signature, message)
    except InvalidSignature as error:
        raise Problem(f"signature of {what} does not match: what it signs was altered") from error


def key_id(public_key: bytes) -> str:
    """FORMAT, Keys: kid."""
    return hashlib.sha256(b"EVF1 kid" + public_key).digest()[:16].hex()


def decode_base64(text: str) -> bytes:
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise Problem("a value is not base64") from error
    # The last character has spare bits, so several spellings would give the same bytes.
    require(base64.b64encode(data).decode() == text, "a base64 value is not in its one spelling")
    return data


def check_moment(text: object) -> None:
    """A moment in UTC, with or without milliseconds (FORMAT, Reading)."""
    form = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z"
    if not isinstance(text, str) or not re.fullmatch(form, text, re.ASCII):
        raise Problem("a time has a wrong form")
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise Problem("a time is none of the calendar") from error


def check_day(text: str) -> None:
    """A date, or a moment."""
    check_moment(text if "T" in text else f"{text}T00:00:00Z")


# --- 14  Fields: all of them must be there, with these JSON types, and nothing else


def fields(
    texts: str = "", numbers: str = "", lists: str = "", objects: str = "", flags: str = ""
) -> dict[str, type]:
    """{field: type} from names with spaces between them."""
    of_type = {str: texts, int: numbers, list: lists, dict: objects, bool: flags}
    return {name: kind for kind, names in of_type.items() for name in names.split()}


DOCUMENT = fields(texts="purpose key signature", objects="body")
MANIFEST = fields(
    texts="institution exam room desk sid candidate_code policy_id retain_until started ended checkpoint"
    " cosignature region storage",
    numbers="v policy_version recipient_set_version leaves",
    lists="segments wraps events gaps lost chain_pem",
)
ENTRIES = {  # of the manifest's lists
    "segments": fields(
        texts="name track class sha256 outcome",
        numbers="epoch seg size_bytes records start_90k end_90k",
        lists="leaf_runs",
    ),
    "wraps": fields(texts="name sha256", numbers="size_bytes"),
    "gaps": fields(texts="cause", numbers="start_90k end_90k", flags="unwitnessed"),
    "events": fields(numbers="index", objects="body"),
    "lost": fields(texts="leaf name cause", numbers="index time_90k"),
}
COMMAND = fields(texts="room desk issued", numbers="serial", objects="order")
RELEASE = fields(texts="kind sid manifest_sha256 approved_by approved_at")
RELEASE_OF_DAMAGED = RELEASE | fields(lists="damaged")
DAMAGED_FILE = fields(texts="name sha256", numbers="size_bytes")
GONE_FILE = DAMAGED_FILE | {"sha256": type(None)}
REWRAP = fields(
    texts="institution sid at", numbers="v", lists="replaces removed keys", objects="recipient_set"
)
RECIPIENT_SET = fields(texts="institution created", numbers="version", lists="representatives")
PERSON = fields(texts="kid name public_key signing_key")
REPLACED = fields(texts="name sha256", flags="erased")
WRAPPED_KEY = fields(lists="wraps", objects="context")
CONTEXT = fields(
    texts="institution sid class created policy_id retain_until", numbers="epoch recipient_set_version"
)
WRAP = fields(texts="kid sealed")


if __name__ == "__main__":
    sys.exit(main())
