"""Targets that verify a whole session's folder twice, with the product and with the stand-alone verifier."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

from appliance.archive.session import LocalSession
from appliance.archive.trust import Trust
from appliance.archive.verify import check_files, require_whole
from appliance.config import ArchiveConfig, load_config
from appliance.errors import BadInput, EvidenceBroken, NotTrusted
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import EvfError
from appliance.evf.rewraps import PURPOSE, verify_rewrap
from appliance.evf.signed import sign_document
from appliance.evidence.certificate import TEXT_PREFIX, Certificate
from appliance.evidence.certifying import countersign, sign_as_desk, verify_certificate
from tests.fuzz.engine import Accepted, Target
from tests.fuzz.mutate import altered
from tests.fuzz.mutate_json import altered_json, altered_text, spelled
from tests.fuzz.on_evidence import SMALL, load_verifier
from tests.rewraps import recipient_set, rewrap
from tests.sessions import SID, build_session, default_room, release, representative

REWRAP = f"wraps/{SID}.r3.evk"
Laid = tuple[dict[str, bytes], bool]  # files to lay, and whether nobody with a key took part


class Folder:
    """A session's folder on tmpfs with its keys wrapped anew; put back as it was before each input."""

    def __init__(self, folder: Path) -> None:
        self.room = default_room()
        self.built = build_session(folder, SMALL, self.room)
        rewrap(self.built, recipient_set(3, 1, 3))
        self.files = {
            str(path.relative_to(self.built.folder)): path.read_bytes()
            for path in sorted(self.built.folder.rglob("*"))
            if path.is_file()
        }
        self.body = parse_canonical(self.files["manifest.json"])["body"]
        self._dirty: set[str] = set()

    def lay(self, files: dict[str, bytes]) -> None:
        """Write these, and what an earlier input had changed as it was."""
        for name in self._dirty | files.keys():
            (self.built.folder / name).write_bytes(files.get(name, self.files[name]))
        self._dirty = set(files)

    def signed(self, body: Any, files: dict[str, bytes]) -> Laid:
        """These files under a manifest that the desk signed and the room released."""
        try:
            data = canonical(sign_document("manifest", body, self.room.device_key))
        except (EvfError, TypeError, ValueError):
            return files | {"manifest.json": spelled(body)}, True
        approval = release(data, self.room.controller_key)
        return files | {"manifest.json": data, "approval.json": approval}, False


@contextmanager
def verifier(folder: Path) -> Iterator[Target]:
    """One altered folder: neither of the two errs, both say the same, and no stranger's change passes."""
    script, laid = load_verifier(), Folder(folder)
    trust = Trust.load(load_config(laid.built.config, ArchiveConfig))
    here = laid.built.config.parent / "trust"
    arguments = [str(laid.built.folder), "--institution", trust.institution]
    for name, file in (
        ("--room-ca", "room-ca.pem"),
        ("--controller", "controller.pub"),
        ("--root", "root.pub"),
    ):
        arguments += [name, str(here / file)]

    def check(value: Laid) -> str:
        changed, stranger = value
        laid.lay(changed)
        with contextlib.redirect_stdout(io.TextIOWrapper(io.BytesIO(), "utf-8")):
            code = script.main(arguments)
        try:
            require_whole(check_files(LocalSession.load(laid.built.folder, trust), lambda _count: None))
            ours = 0
        except EvidenceBroken:
            ours = 1
        except BadInput:
            ours = 2
        different = any(data != laid.files[name] for name, data in changed.items())
        if stranger and different and 0 in (code, ours):
            raise Accepted("an altered session verifies")
        if code != ours:
            raise Accepted(f"the stand-alone verifier says {code}, the product {ours}")
        return ("whole", "not whole", "not checked")[code]

    yield Target(lambda rng: _altered_folder(rng, laid), check)


def _altered_folder(rng: Random, laid: Folder) -> Laid:
    name = rng.choice([*laid.files, REWRAP, REWRAP])
    data = altered(rng, [laid.files[name]])
    match rng.randrange(6):
        case 0 | 1:
            if name.endswith((".json", ".evk")):
                data = altered_text(rng, [json.loads(laid.files[name])], canonical)
            return {name: data}, True
        case 2:  # a re-wrap that somebody of its set signed
            body = altered_json(rng, [json.loads(laid.files[REWRAP])["body"]])
            try:
                signer = representative(1).signing_key()
                return {REWRAP: canonical(sign_document(PURPOSE, body, signer))}, False
            except (EvfError, TypeError, ValueError):
                return {REWRAP: spelled(body)}, True
        case 3:  # the desk's certificate, its bytes altered
            body = json.loads(json.dumps(laid.body))
            body["chain_pem"] = [_altered_pem(rng, body["chain_pem"][0])]
            return laid.signed(body, {})
        case 4 if name.endswith(".evf"):  # a segment, with the manifest renewed
            body = json.loads(json.dumps(laid.body))
            for entry in body["segments"]:
                if name == f"segments/{entry['name']}":
                    entry |= {"size_bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            return laid.signed(body, {name: data})
    return laid.signed(altered_json(rng, [laid.body]), {})


def _altered_pem(rng: Random, pem: str) -> str:
    return ssl.DER_cert_to_PEM_cert(altered(rng, [ssl.PEM_cert_to_DER_cert(pem)])[:4000])


@contextmanager
def rewraps(folder: Path) -> Iterator[Target]:
    """Re-wrap files: none is taken that nobody of a set of this root signed."""
    laid = Folder(folder)
    document = parse_canonical(laid.files[REWRAP])
    root, signer = laid.room.root_key.public_key(), representative(1).signing_key()

    def make(rng: Random) -> tuple[bytes, bool]:
        if rng.random() < 0.4:
            return altered_text(rng, [document], canonical), True
        body = altered_json(rng, [document["body"]])
        try:
            return canonical(sign_document(PURPOSE, body, signer)), False
        except (EvfError, TypeError, ValueError):
            return spelled(body), True

    def check(value: tuple[bytes, bool]) -> str:
        data, stranger = value
        try:
            verify_rewrap(data, root)
        except EvfError:
            return "refused"
        if stranger and data != laid.files[REWRAP]:
            raise Accepted("a re-wrap that nobody signed is taken")
        return "taken"

    yield Target(make, check)


@contextmanager
def certificates(folder: Path) -> Iterator[Target]:
    """Completeness certificates as documents and as QR text: what verifies says what desk and room signed."""
    laid = Folder(folder)
    manifest, data = laid.built.manifest, laid.files["manifest.json"]
    half = sign_as_desk(manifest, data, laid.room.device_key)
    true = countersign(half, manifest, data, laid.room.controller_key)
    ca, controller = laid.room.ca_certificate(), laid.room.controller_key.public_key()
    document, text = parse_canonical(true.to_bytes()), true.to_text().encode()
    packed = base64.b32decode(text[len(TEXT_PREFIX) :] + b"=" * (-len(text[len(TEXT_PREFIX) :]) % 8))

    def make(rng: Random) -> bytes:
        match rng.randrange(5):
            case 0:
                return altered(rng, [text, true.to_bytes()])
            case 1:
                spoilt = base64.b32encode(altered(rng, [packed])).rstrip(b"=")
                return TEXT_PREFIX.encode() + spoilt
            case 2:
                der = altered(rng, [true.device_certificate])
                return canonical({**document, "device_certificate": base64.b64encode(der).decode()})
        return altered_text(rng, [document], canonical)

    def check(value: bytes) -> str:
        try:
            found = Certificate.parse(value)
        except BadInput:
            return "refused"
        if Certificate.parse(found.to_bytes()) != found:  # deflate has spare bits, so the text may differ
            raise Accepted("a certificate is read as another one")
        try:
            found.desk_key_id  # noqa: B018 - a property that reads the certificate inside
            verify_certificate(found, ca, controller)
        except (NotTrusted, EvidenceBroken):
            return "not trusted"
        if found.body != true.body or found.lines not in (None, true.lines):
            raise Accepted("a certificate says what nobody signed")
        return "verified"

    yield Target(make, check)
