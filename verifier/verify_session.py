"""Verifies the folder of one recorded exam session: without the product that recorded it, without a key that opens it.

    python verify_session.py SESSION_DIR --room-ca room-ca.pem --controller controller.pub

One file; needs Python 3.11 and `cryptography`, and shares no line with the product. Read `main`, then `verify`, then
the steps in their order. FORMAT is docs/format.md of the project; RFC 6962 is Certificate Transparency (Merkle trees);
C2SP is c2sp.org: signed-note, tlog-checkpoint, tlog-cosignature.

Two things must come from elsewhere than the session's folder, for everything rests on them: the room's CA certificate
(it says which desks are the room's) and the room controller's public key (it witnessed the recording while it was
made, and released it). Exit code: 0 the session is whole, 1 it is not, 2 it could not be checked.
"""

import argparse
import base64
import hashlib
import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.x509.oid import NameOID

RATE_HZ = 90_000  # all times of a session count from its start in this unit (FORMAT, Layout)
MAX_HEADER_BYTES, MAX_PLAINTEXT_BYTES, MAX_RECORDS = 4096, 16 * 2**20, 2**20  # FORMAT, Layout and Reading
PRE_BYTES, TAG_BYTES, CHAIN_BYTES, COMMIT_BYTES = 24, 16, 32, 32
INIT, FRAGMENT, EVENT, END = 1, 2, 3, 0xFF
UNUSABLE = (IndexError, AttributeError, ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound)


def fields(texts="", numbers="", lists=""):
    """{field: JSON type} from names with spaces between them."""
    return {
        name: kind for names, kind in ((texts, str), (numbers, int), (lists, list)) for name in names.split()
    }


# What each object of the manifest and of the approval holds; all of it must be there, and nothing else.
MANIFEST = fields(
    "institution exam room desk sid candidate_code policy_id retain_until started ended checkpoint cosignature"
    " region storage",
    "v policy_version recipient_set_version leaves",
    "segments wraps events gaps lost chain_pem",
)
SEGMENT_NUMBERS = "epoch seg size_bytes records start_90k end_90k"
ENTRIES = {
    "segments": fields("name track class sha256 outcome", SEGMENT_NUMBERS, "leaf_runs"),
    "wraps": fields("name sha256", "size_bytes"),
    "gaps": fields("cause", "start_90k end_90k") | {"unwitnessed": bool},
    "events": {"index": int, "body": dict},
    "lost": fields("leaf name cause", "index time_90k"),
}
DOCUMENT = fields("purpose key signature") | {"body": dict}
COMMAND = fields("room desk issued", "serial") | {"order": dict}
RELEASE = fields("kind sid manifest_sha256 approved_by approved_at")


class Problem(Exception):
    """Something is not as it should be; the text says what."""


def require(condition, problem):
    if not condition:
        raise Problem(problem)


# --- JSON and signatures (FORMAT, JSON)


def canonical(value):
    """The one spelling that is hashed and signed: sorted keys, no spaces, ASCII."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (ValueError, RecursionError) as error:
        raise Problem("it holds a value that has no canonical form") from error


def parse_json(data):
    try:
        value = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise Problem("it is not JSON") from error
    require(type(value) is dict, "it is not a JSON object")
    return value


def require_fields(item, wanted, what):
    right = type(item) is dict and {name: type(value) for name, value in item.items()} == wanted
    require(right, f"{what} has unknown, missing or mistyped fields")
    return item


def decode_base64(text):
    try:
        data = base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError as error:
        raise Problem("a value is not base64") from error
    # The last character has spare bits, so several spellings would give the same bytes.
    require(base64.b64encode(data).decode() == text, "a base64 value is not in its one spelling")
    return data


def require_signature(key, signature, message, what):
    try:
        key.verify(signature, message)
    except InvalidSignature as error:
        raise Problem(f"signature of {what} does not match: what it signs was altered") from error


def signed_body(document, purpose, key):
    """FORMAT, JSON: {"body", "purpose", "key", "signature"}; the purpose is signed along."""
    require_fields(document, DOCUMENT, "signed document")
    kid = hashlib.sha256(b"EVF1 kid" + key.public_bytes_raw()).digest()[:16].hex()
    require(document["purpose"] == purpose, f"it is not signed as {purpose}")
    require(document["key"] == kid, "it is signed by another key")
    message = b"invigil signed document v1\0" + purpose.encode() + b"\0" + canonical(document["body"])
    require_signature(key, decode_base64(document["signature"]), message, purpose)
    return document["body"]


# --- Who signed: certificate, manifest, checkpoint, cosignature, approval


def device_key(manifest, room_ca):
    """The desk's key, if the room's CA issued its certificate for this desk and both were valid at the end."""
    try:
        device = x509.load_pem_x509_certificate(manifest["chain_pem"][0].encode("ascii"))
        device.verify_directly_issued_by(room_ca)
        ends = [each.extensions.get_extension_for_class(x509.BasicConstraints) for each in (room_ca, device)]
        names = [name.value for name in device.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        key = device.public_key()
        ended = datetime.strptime(manifest["ended"], "%Y-%m-%dT%H:%M:%S.%fZ").replace(tzinfo=UTC)
    except InvalidSignature as error:
        raise Problem("the desk's certificate was not issued by this room's CA") from error
    except UNUSABLE as error:
        raise Problem("the desk's certificate or the session's end cannot be used") from error
    require(
        [end.value.ca for end in ends] == [True, False], "the desk's certificate or the CA's has another role"
    )
    require(names == [manifest["desk"]], "the desk's certificate is another desk's")
    require(isinstance(key, Ed25519PublicKey), "the desk's certificate holds another kind of key")
    for each in (device, room_ca):
        valid = each.not_valid_before_utc <= ended <= each.not_valid_after_utc
        require(valid, "a certificate was not valid when the session ended")
    return key


def read_manifest(data, room_ca):
    """(manifest, the desk's key): signed by the desk named in it (FORMAT, Evidence)."""
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


def note_line(line):
    """C2SP signed-note: "— name base64(4 bytes of key hash || signature)" -> (name, key hash, the rest)."""
    match = re.fullmatch("— ([!-*,-~]+) ([A-Za-z0-9+/=]+)", line)
    require(match, "a signature line of the checkpoint is malformed")
    blob = decode_base64(match[2])
    return match[1], blob[:4], blob[4:]


def note_key_hash(name, algorithm, key):
    """C2SP signed-note: SHA-256(name || 0x0A || algorithm || public key)[:4]; 1: Ed25519, 4: cosignature/v1."""
    return hashlib.sha256(name.encode() + b"\n" + bytes([algorithm]) + key.public_bytes_raw()).digest()[:4]


def read_checkpoint(manifest, key):
    """(text, root): the desk's signed word that this session's log has so many leaves under this root."""
    text, _, signatures = manifest["checkpoint"].rpartition("\n\n")
    text += "\n"
    # C2SP tlog-checkpoint: origin, size, root, a line each; no further lines (FORMAT, Evidence).
    root = decode_base64([*text.split("\n"), "", ""][2])
    name = f"node/{manifest['desk']}"
    wanted = f"{name}/session/{manifest['sid']}\n{manifest['leaves']}\n{base64.b64encode(root).decode()}\n"
    require(text == wanted and len(root) == 32, "the checkpoint is of another session or number of leaves")
    for found, key_hash, signature in map(note_line, signatures[:-1].split("\n")):
        if (found, key_hash) == (name, note_key_hash(name, 1, key)):
            require_signature(key, signature, text.encode(), "the checkpoint")
            return text, root
    raise Problem("the checkpoint is not signed by the desk")


def check_cosignature(manifest, text, controller):
    """The room controller witnessed this very checkpoint (C2SP tlog-cosignature, cosignature/v1)."""
    require(manifest["cosignature"], "the room controller did not cosign it: the end was never witnessed")
    name, key_hash, blob = note_line(manifest["cosignature"].removesuffix("\n"))
    ours = key_hash == note_key_hash(name, 4, controller) and len(blob) == 8 + 64
    require(ours, "the cosignature is of another key than the room controller's")
    time_s = int.from_bytes(blob[:8], "big")
    message = f"cosignature/v1\ntime {time_s}\n{text}".encode()
    require_signature(controller, blob[8:], message, "the room controller")
    return f"by {name}"


def check_approval(path, manifest, manifest_bytes, controller):
    """approval.json: the controller's signed command that releases exactly these bytes of a manifest."""
    require(path.is_file(), "file is missing")
    command = signed_body(parse_json(path.read_bytes()), "command", controller)
    order = require_fields(require_fields(command, COMMAND, "command")["order"], RELEASE, "release")
    require(order["kind"] == "release", "it is no release")
    said = (command["room"], command["desk"], order["sid"])
    require(said == (manifest["room"], manifest["desk"], manifest["sid"]), "it releases another session")
    digest = hashlib.sha256(manifest_bytes).hexdigest()
    require(order["manifest_sha256"] == digest, "it releases another manifest of this session")
    return f"released by {order['approved_by']} at {order['approved_at']}"


def check_accounts(manifest):
    """Every leaf of the log is exactly one record, event or declared loss; names are plain file names."""
    entries = manifest["segments"] + manifest["wraps"]
    names = [entry["name"] for entry in entries]
    digests = [entry["sha256"] for entry in entries] + [lost["leaf"] for lost in manifest["lost"]]
    plain = all(re.fullmatch("[A-Za-z0-9][A-Za-z0-9._-]{0,200}", name) for name in names)
    require(plain and len(set(names)) == len(names), "it names a file twice or in a wrong form")
    require(all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests), "a digest has a wrong form")
    runs = [[item["index"], 1] for item in manifest["events"] + manifest["lost"]]
    for entry in manifest["segments"]:
        mine = entry["leaf_runs"]
        formed = all(type(run) is list and [type(number) for number in run] == [int, int] for run in mine)
        require(
            formed and sum(run[1] for run in mine) == entry["records"], f"count of {entry['name']} is wrong"
        )
        possible = entry["outcome"] in ("CLOSED", "OPEN_ENDED") and entry["start_90k"] <= entry["end_90k"]
        require(possible, f"it gives no possible outcome or span for {entry['name']}")
        runs += mine
    following = 0
    for first, count in sorted(runs):
        require(
            first == following and count > 0, f"it does not say what leaf {following} is, or says it twice"
        )
        following += count
    require(following == manifest["leaves"], f"it accounts for {following} of {manifest['leaves']} leaves")


# --- The files


def check_bytes(path, entry):
    """Size and SHA-256 are the manifest's."""
    require(path.is_file(), "file is missing")
    size_bytes = path.stat().st_size
    require(
        size_bytes == entry["size_bytes"], f"file has {size_bytes} bytes, manifest says {entry['size_bytes']}"
    )
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    require(digest == entry["sha256"], "file was altered: its SHA-256 is not the manifest's")


def sframe_number(value):
    """RFC 9605, 4.3: below 8 in the config byte itself, else its length there and the fewest bytes behind it."""
    if value < 8:
        return value, b""
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return 8 | (len(data) - 1), data


def check_header(stream, manifest, entry):
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
    require(
        canonical(header) == data,
        "file is of another segment, session, institution, policy or retention date",
    )
    require(len(stream.read(COMMIT_BYTES)) == COMMIT_BYTES, "file ends inside its header")


def record_leaves(path, manifest, entry):
    """Leaf hash of each record, SHA-256(0x00 || RECORD) (RFC 6962, 2.1); the records are whole and in order."""
    leaves, ended = [], False
    with path.open("rb") as stream:
        check_header(stream, manifest, entry)
        while pre := stream.read(PRE_BYTES):  # PRE: CHNK type:1 flags:1 reserved:2 index:4 plain_len:4 time:8
            index, here = len(leaves), f"where record {len(leaves)} belongs"
            require(len(pre) == PRE_BYTES and pre[:4] == b"CHNK" and not ended, f"no record stands {here}")
            kind, flags, plain_bytes = pre[4], pre[5], int.from_bytes(pre[12:16], "big")
            require(kind in (INIT, FRAGMENT, EVENT, END) and index < MAX_RECORDS, f"unknown record {here}")
            reserved = pre[6:8] != b"\0\0" or flags > (kind == FRAGMENT)
            require(not reserved, f"reserved bits are set {here}")
            allowed = plain_bytes == CHAIN_BYTES if kind == END else plain_bytes <= MAX_PLAINTEXT_BYTES
            require(allowed, f"a length that the format does not allow stands {here}")
            # SFRAME: header with the segment's number as KID and the index as CTR, ciphertext, tag
            (kid_code, kid), (ctr_code, ctr) = sframe_number(entry["seg"]), sframe_number(index)
            sframe = bytes([kid_code << 4 | ctr_code]) + kid + ctr
            rest = stream.read(len(sframe) + plain_bytes + TAG_BYTES)
            same = int.from_bytes(pre[8:12], "big") == index and rest.startswith(sframe)
            require(same, f"another record stands {here}")
            require(len(rest) == len(sframe) + plain_bytes + TAG_BYTES, f"the file ends {here}")
            leaves.append(hashlib.sha256(b"\0" + pre + rest).digest())
            ended = kind == END
    right = ended == (entry["outcome"] == "CLOSED") and len(leaves) == entry["records"]
    require(right, f"file does not end as {entry['outcome']} with {entry['records']} records")
    return leaves


def merkle_root(leaves):
    """RFC 6962, 2.1: SHA-256(0x01 || left || right), split at the largest power of two below the number of leaves."""
    if len(leaves) < 2:
        return leaves[0] if leaves else hashlib.sha256(b"").digest()
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return hashlib.sha256(b"\1" + merkle_root(leaves[:split]) + merkle_root(leaves[split:])).digest()


# --- The whole


def write(line):
    """A line of output; names and words from the folder cannot begin another one, nor command the terminal."""
    sys.stdout.write("".join(letter if letter.isprintable() else "?" for letter in line) + "\n")


def clock(second):
    return f"{second // 3600:02d}:{second // 60 % 60:02d}:{second % 60:02d}"


def span(start_90k, end_90k):
    """hh:mm:ss-hh:mm:ss from the session's start; the end is rounded up."""
    return f"{clock(start_90k // RATE_HZ)}-{clock(-(-end_90k // RATE_HZ))}"


class Findings:
    """Prints a line per check and remembers what was not as it should be: (span, name, text)."""

    def __init__(self):
        self.broken = []
        self.span = "whole session"

    def say(self, state, when, name, text):
        write(f"{state:8}{when:19}{name}  {text}")

    def fail(self, state, when, name, text):
        self.broken.append((when, name, text))
        self.say(state, when, name, text)

    def check(self, when, name, step, *arguments):
        """The step's result, or None after a Problem."""
        try:
            result = step(*arguments)
        except Problem as problem:
            return self.fail("broken", when, name, str(problem))
        self.say("ok", when, name, result if isinstance(result, str) else "")
        return result


def verify(folder, room_ca, controller, institution=None):
    """Findings of the session in `folder`."""
    found = Findings()
    manifest_bytes = (folder / "manifest.json").read_bytes()
    read = found.check(
        found.span, "manifest.json: signature and certificate", read_manifest, manifest_bytes, room_ca
    )
    if read is None:  # nothing that it names can be relied on
        return found
    manifest, key = read
    segments = manifest["segments"]
    end_90k = max((entry["end_90k"] for entry in segments), default=0)
    whole = found.span = span(0, end_90k)
    found.check(whole, "manifest.json: account of all records", check_accounts, manifest)
    checkpoint = found.check(whole, "manifest.json: checkpoint", read_checkpoint, manifest, key)
    if found.broken:
        return found
    text, root = checkpoint
    found.check(whole, "manifest.json: cosignature", check_cosignature, manifest, text, controller)
    if institution is not None and manifest["institution"] != institution:
        found.fail(
            "broken", whole, "manifest.json", f"session belongs to institution {manifest['institution']}"
        )
    path = folder / "approval.json"
    found.check(whole, "approval.json", check_approval, path, manifest, manifest_bytes, controller)

    # The leaves of the session's log, numbered as the desk committed them (FORMAT, Evidence).
    leaves = {
        item["index"]: hashlib.sha256(b"\0" + canonical(item["body"])).digest() for item in manifest["events"]
    }
    leaves |= {item["index"]: bytes.fromhex(item["leaf"]) for item in manifest["lost"]}
    for entry in segments:
        path, when, before = (
            folder / "segments" / entry["name"],
            span(entry["start_90k"], entry["end_90k"]),
            found.broken[:],
        )
        found.check(when, f"{entry['name']}: size, SHA-256", check_bytes, path, entry)
        if found.broken == before:
            records = found.check(when, f"{entry['name']}: records", record_leaves, path, manifest, entry)
            if records:
                indices = [first + step for first, count in entry["leaf_runs"] for step in range(count)]
                leaves |= dict(zip(indices, records, strict=True))
    for entry in manifest["wraps"]:
        # Named <sid>.<epoch>.<class>.evk: without it nobody opens the segments of that epoch and class.
        opened = [
            each
            for each in segments
            if entry["name"] == f"{manifest['sid']}.{each['epoch']}.{each['class']}.evk"
        ]
        start = min((each["start_90k"] for each in opened), default=0)
        when = span(start, max((each["end_90k"] for each in opened), default=end_90k))
        found.check(
            when, f"{entry['name']}: size, SHA-256", check_bytes, folder / "wraps" / entry["name"], entry
        )

    if len(leaves) != manifest["leaves"]:
        found.fail("broken", whole, "witnessed root", "cannot be computed: records are missing")
    elif merkle_root([leaves[index] for index in range(manifest["leaves"])]) == root:
        found.say("ok", whole, "witnessed root", f"{manifest['leaves']} records and events lead to it")
    else:
        found.fail("broken", whole, "witnessed root", "records and events do not lead to it")
    for item in manifest["lost"]:
        when = span(item["time_90k"], item["time_90k"])
        found.fail("lost", when, item["name"], f"the desk itself says that it lost a record: {item['cause']}")
    for gap in manifest["gaps"]:
        what = "recorded without a witness" if gap["unwitnessed"] else "not recorded"
        found.say("gap", span(gap["start_90k"], gap["end_90k"]), what, gap["cause"])

    named = {"manifest.json", "approval.json"} | {f"segments/{entry['name']}" for entry in segments}
    named |= {f"wraps/{entry['name']}" for entry in manifest["wraps"]}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in named and (path.is_symlink() or not path.is_dir()):
            found.fail("broken", whole, name, "file is not named in the manifest")
    return found


def main(arguments=None):
    parser = argparse.ArgumentParser(description="Verify the folder of one recorded session.")
    parser.add_argument("folder", type=Path, metavar="SESSION_DIR")
    parser.add_argument("--room-ca", type=Path, required=True, help="certificate of the room's CA (PEM)")
    parser.add_argument(
        "--controller", type=Path, required=True, help="the room controller's public key (hex)"
    )
    parser.add_argument("--institution", help="whose session this should be")
    given = parser.parse_args(arguments)
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        room_ca = x509.load_pem_x509_certificate(given.room_ca.read_bytes())
        controller = Ed25519PublicKey.from_public_bytes(
            bytes.fromhex(given.controller.read_text("ascii").strip())
        )
        found = verify(given.folder, room_ca, controller, given.institution)
    except (OSError, ValueError) as error:
        write(f"session was not checked: {error}")
        return 2
    if not found.broken:
        write(f"session is whole: {found.span}")
        return 0
    when, name, text = found.broken[0]
    more = f"; and {len(found.broken) - 1} more" if len(found.broken) > 1 else ""
    write(f"session is not whole: {when}  {name}: {text}{more}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
