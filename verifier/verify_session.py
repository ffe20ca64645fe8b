"""Verifies the folder of one recorded exam session: without the product that recorded it, without a key that opens it.

    python verify_session.py SESSION_DIR --room-ca room-ca.pem --controller controller.pub [--root root.pub]

One file; needs Python 3.11 and `cryptography`, and shares no line with the product. Read `main`, then `verify`, then
the steps in their order. FORMAT is docs/format.md of the project; RFC 6962 is Certificate Transparency (Merkle trees);
C2SP is c2sp.org: signed-note, tlog-checkpoint, tlog-cosignature.

Two things must come from elsewhere than the session's folder, for everything rests on them: the room's CA certificate
(it says which desks are the room's) and the room controller's public key (it witnessed the recording while it was
made, and released it). A third, the institution's root key, is needed only where keys were wrapped anew after the
recording, for other people than the desk sealed it for. Exit code: 0 the session is whole, 1 it is not, 2 it could
not be checked.
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
MAX_REWRAPPED, SEALED_BYTES = 4096, 1088 + 32 + 32 + 16  # FORMAT, Keys and Keys wrapped anew
CODE = "[A-Za-z0-9][A-Za-z0-9._-]{0,63}"  # FORMAT, Reading, as the others
HEADER_FORMS = {
    "sid": "[0-9a-f]{32}",
    "class": "media|log|identity",
    "track": "[a-z0-9][a-z0-9_-]{0,31}",
    "codec": "[A-Za-z0-9][A-Za-z0-9.,+/;=_-]{0,63}",
    "institution": CODE,
    "policy": CODE,
    "salt": "[0-9a-f]{64}",
}
PRE_BYTES, TAG_BYTES, CHAIN_BYTES, COMMIT_BYTES = 24, 16, 32, 32
INIT, FRAGMENT, EVENT, END = 1, 2, 3, 0xFF
UNUSABLE = (IndexError, AttributeError, ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound)
UNUSABLE += (x509.InvalidVersion, x509.DuplicateExtension, x509.UnsupportedGeneralNameType)


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
REWRAP = fields("institution sid at", "v", "replaces removed keys") | {"recipient_set": dict}
RECIPIENT_SET = fields("institution created", "version", "representatives")
PERSON = fields("kid name public_key signing_key")
REPLACED = fields("name sha256") | {"erased": bool}
CONTEXT = fields("institution sid class created policy_id retain_until", "epoch recipient_set_version")
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
    spelled = f"{ended:%Y-%m-%dT%H:%M:%S}.{ended.microsecond // 1000:03d}Z"
    require(spelled == manifest["ended"], "the session's end is not in its one spelling")
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
    require(signatures.endswith("\n"), "the checkpoint's last line has no end")
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
    data = path.read_bytes()
    document = parse_json(data)
    command = signed_body(document, "command", controller)
    require(canonical(document) == data, "it is not in canonical form")
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


# --- Keys wrapped anew (FORMAT, Keys wrapped anew): who did it, for whom, and which of the desk's wraps had to go


def kid_of(data):
    return hashlib.sha256(b"EVF1 kid" + data).digest()[:16].hex()


def read_rewrap(path, manifest, root_key):
    """(version, erased names, words), if somebody of a recipient set that the institution's root signed made it."""
    require(root_key is not None, "keys were wrapped anew; who did it cannot be checked without --root")
    data = path.read_bytes()
    document = parse_json(data)
    require(canonical(document) == data, "it is not in canonical form")
    body = require_fields(document.get("body"), REWRAP, "re-wrap")
    people = require_fields(
        signed_body(body["recipient_set"], "recipient-set", root_key), RECIPIENT_SET, "set"
    )
    version, persons = people["version"], people["representatives"]
    for person in persons:
        require_fields(person, PERSON, "representative")
        require(
            person["kid"] == kid_of(decode_base64(person["public_key"])),
            "a key id does not belong to its key",
        )
    signers = [one for one in persons if kid_of(decode_base64(one["signing_key"])) == document.get("key")]
    require(signers, "it is signed by nobody of its recipient set")
    signer = decode_base64(signers[0]["signing_key"])
    require(len(signer) == 32, "a signing key has the wrong length")
    signed_body(document, "rewrap", Ed25519PublicKey.from_public_bytes(signer))
    check_rewrap(path.name, body, people, manifest)
    names = ", ".join(person["name"] for person in persons)
    removed = ", ".join(kid[:8] for kid in body["removed"])
    words = f"keys re-wrapped for recipient set {version} ({names}) by {signers[0]['name']} on {body['at']}"
    erased = {item["name"] for item in body["replaces"] if item["erased"]}
    return version, erased, words + (f"; removed: key {removed}" if removed else "")


def check_moment(text):
    require(
        re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3})?Z", text, re.ASCII), "a time has a wrong form"
    )
    try:
        datetime.fromisoformat(text)
    except ValueError as error:
        raise Problem("a time is none of the calendar") from error


def check_day(text):
    """A date, or a moment."""
    check_moment(text if "T" in text else f"{text}T00:00:00Z")


def check_rewrap(name, body, people, manifest):
    """It is of this session: it replaces exactly the wraps that the manifest names, key by key, for everybody."""
    version, mine = people["version"], (manifest["sid"], manifest["institution"])
    of_session = (body["sid"], body["institution"]) == mine and people["institution"] == mine[1]
    require(of_session and name == f"{mine[0]}.r{version}.evk", "it is of another session or recipient set")
    require(body["v"] == 1 and version >= manifest["recipient_set_version"], "version is unknown or too old")
    check_moment(body["at"])
    require(
        max(len(body[name]) for name in ("replaces", "removed", "keys")) <= MAX_REWRAPPED,
        "a list is too long",
    )
    for item in body["replaces"]:
        require_fields(item, REPLACED, "replaced file")
        formed = re.fullmatch(r"[0-9a-f]{32}\.[A-Za-z0-9.]{1,64}\.evk", item["name"])
        require(formed and re.fullmatch("[0-9a-f]{64}", item["sha256"]), "a replaced file has a wrong form")
    replaced = {item["name"]: item["sha256"] for item in body["replaces"]}
    require(len(replaced) == len(body["replaces"]), "it replaces a file twice")
    members = sorted(person["kid"] for person in people["representatives"])
    kids = all(re.fullmatch("[0-9a-f]{32}", kid) for kid in body["removed"])
    require(kids and not set(members) & set(body["removed"]), "somebody is removed who stands in the set")
    same = all(replaced.get(entry["name"]) == entry["sha256"] for entry in manifest["wraps"])
    require(same, "it does not replace the wraps that the manifest names")
    wanted = {entry["name"]: 1 for entry in manifest["wraps"]}
    for item in body["keys"]:
        require_fields(item, {"context": dict, "wraps": list}, "wrapped key")
        context = require_fields(item["context"], CONTEXT, "wrap context")
        check_moment(context["created"])
        said = [context[field] for field in ("sid", "institution", "recipient_set_version")]
        said += [context[field] for field in ("policy_id", "retain_until")]
        right = said == [*mine, version, manifest["policy_id"], manifest["retain_until"]]
        for wrap in item["wraps"]:
            require_fields(wrap, fields("kid sealed"), "wrap")
            right = right and len(decode_base64(wrap["sealed"])) == SEALED_BYTES
        right = right and sorted(wrap["kid"] for wrap in item["wraps"]) == members
        require(right, "a key in it is of another session or for other people")
        place = f"{mine[0]}.{context['epoch']}.{context['class']}.evk"
        require(wanted.pop(place, 0), "it holds other keys than the session has")
    require(not wanted, "it holds other keys than the session has")


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
    for name, form in HEADER_FORMS.items():
        value = header["policy"]["id"] if name == "policy" else header[name]
        require(type(value) is str and re.fullmatch(form, value), f"header's {name} has a wrong form")
    require(0 <= header["epoch"] < 2**32 and 0 <= header["seg"] < 2**20, "a header's number is out of range")
    check_moment(header["created"])
    check_day(header["policy"]["retain_until"])
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


# --- What the desk itself noted: footage that is there and shows nothing, a clock that was set


def holes(manifest):
    """Spans without video that no gap names: over 3 s at the start, over half a second later (FORMAT, Certificate)."""
    video = [
        (entry["start_90k"], entry["end_90k"]) for entry in manifest["segments"] if entry["track"] == "video"
    ]
    named = [(gap["start_90k"], gap["end_90k"]) for gap in manifest["gaps"] if not gap["unwitnessed"]]
    covered, allowed = 0, 3 * RATE_HZ
    for start, end in sorted(video + named) if video else []:
        if start - covered > allowed:
            yield covered, start
        covered, allowed = max(covered, end), RATE_HZ // 2


def noted(events):
    """(start, end, words) of the events picture and clock_step; touching spans of one finding are one."""
    spans, newest = [], {}
    for body in (event["body"] for event in events):
        kind, what = body.get("kind"), body.get("finding")
        if kind == "clock_step":
            at, by_ms = body.get("at_90k"), body.get("by_ms")
            if whole_numbers(at, by_ms) and by_ms:
                spans.append([at, at, f"clock set by {by_ms / 1000:+.1f} s"])
            else:
                spans.append([0, 0, "clock step that cannot be read"])
        elif kind == "picture":
            start, end = body.get("from_90k"), body.get("to_90k")
            known = what in ("black", "covered", "frozen", "undecodable", "unchecked")
            if not (known and whole_numbers(start, end) and start <= end):
                spans.append([0, 0, "picture finding that cannot be read"])
                continue
            last = newest.get(what)
            if last and last[0] <= start <= last[1]:
                last[1] = max(last[1], end)
            else:
                newest[what] = [start, end, what]
                spans.append(newest[what])
    return sorted(spans)


def whole_numbers(*values):
    """Session times are within a century of its start."""
    return all(type(value) is int and abs(value) <= 284_018_400_000_000 for value in values)


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


def verify(folder, room_ca, controller, institution=None, root_key=None):
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
    rewraps, erased, newest = [], set(), 0
    for path in sorted((folder / "wraps").glob(f"{manifest['sid']}.r*.evk")):
        if path.is_symlink() or not re.fullmatch(r"[0-9a-f]{32}\.r[1-9][0-9]{0,9}\.evk", path.name):
            continue
        try:
            version, gone, words = read_rewrap(path, manifest, root_key)
            if version > newest:  # the newest one counts
                erased, newest = gone, version
        except (Problem, KeyError, *UNUSABLE) as problem:
            rewraps.append((found.fail, "broken", path.name, f"is no re-wrap of this session: {problem}"))
        else:
            rewraps.append((found.say, "ok", path.name, words))

    for entry in manifest["wraps"]:
        # Named <sid>.<epoch>.<class>.evk: without it nobody opens the segments of that epoch and class.
        opened = [
            each
            for each in segments
            if entry["name"] == f"{manifest['sid']}.{each['epoch']}.{each['class']}.evk"
        ]
        start = min((each["start_90k"] for each in opened), default=0)
        when = span(start, max((each["end_90k"] for each in opened), default=end_90k))
        path = folder / "wraps" / entry["name"]
        if entry["name"] in erased and not (path.exists() or path.is_symlink()):
            found.say("ok", when, entry["name"], "erased when it was replaced")
        else:
            found.check(when, f"{entry['name']}: size, SHA-256", check_bytes, path, entry)
    for say, state, name, words in rewraps:
        say(state, whole, name, words)

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
    for start, end in holes(manifest):
        found.say("gap", span(start, end), "not recorded", "there is no footage, and the desk names no cause")
    for start, end, finding in noted(manifest["events"]):
        found.say("note", span(start, end), "recorded, not as promised", finding)

    named = {"manifest.json", "approval.json"} | {f"segments/{entry['name']}" for entry in segments}
    named |= {f"wraps/{entry['name']}" for entry in manifest["wraps"]}
    named |= {f"wraps/{name}" for _, _, name, _ in rewraps}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if name not in named and (path.is_symlink() or not path.is_dir()):
            found.fail("broken", whole, name, "file is not named in the manifest")
    return found


def read_public_key(path):
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(path.read_text("ascii").strip()))


def main(arguments=None):
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
    sys.stdout.reconfigure(errors="backslashreplace")
    try:
        room_ca = x509.load_pem_x509_certificate(given.room_ca.read_bytes())
        controller = read_public_key(given.controller)
        root = read_public_key(given.root) if given.root else None
        found = verify(given.folder, room_ca, controller, given.institution, root)
    except (OSError, ValueError, x509.InvalidVersion) as error:
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
