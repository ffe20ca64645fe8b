"""What fuzzing found, each as the smallest input that showed it."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
import struct
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from appliance.archive.keys import RootKey, sign_policy_file
from appliance.archive.session import LocalSession
from appliance.archive.trust import Trust
from appliance.archive.verify import check_files, require_whole
from appliance.config import ArchiveConfig, NodeConfig, load_config
from appliance.errors import BadConfig, BadInput, EvidenceBroken
from appliance.evf.canonical import canonical
from appliance.evf.signed import sign_document
from appliance.evidence.checkpoint import Witness
from appliance.frames import HEADER_BYTES, FrameRingReader
from appliance.protocol import COMMAND_PURPOSE, Command, ObservationReport, verify_message
from appliance.room.link import Link
from appliance.room.trust import PolicyFile
from appliance.room.web import _problem
from appliance.trust import load_certificate
from tests.fuzz.on_evidence import PEOPLE, SMALL, load_verifier
from tests.fuzz.on_wire import CONTROLLER, ROOT, commands
from tests.sessions import Built, build_session, observation

DEEP_TOML = b"x = " + b"[" * 20_000
HUGE_TOML = b"x = " + b"1" * 20_000


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path, SMALL, PEOPLE)


def verdicts(built: Built) -> tuple[int, int]:
    """Exit code of the stand-alone verifier, and what the product would give."""
    trust = built.config.parent / "trust"
    arguments = [str(built.folder), "--room-ca", str(trust / "room-ca.pem")]
    code = load_verifier().main([*arguments, "--controller", str(trust / "controller.pub")])
    try:
        session = LocalSession.load(built.folder, Trust.load(load_config(built.config, ArchiveConfig)))
        require_whole(check_files(session, lambda _count: None))
    except EvidenceBroken:
        return code, 1
    return code, 0


def test_approval_that_names_a_key_twice_is_no_approval(built: Built) -> None:
    """Two readers may take different ones of the two; the second, true one here was taken by both of ours."""
    path = built.folder / "approval.json"
    text = path.read_text()
    assert verdicts(built) == (0, 0)
    path.write_text(
        text.replace('"manifest_sha256":', '"manifest_sha256":"' + "0" * 64 + '","manifest_sha256":')
    )
    assert verdicts(built) == (1, 1)
    path.write_text(text + "\n")
    assert verdicts(built) == (1, 1)


@pytest.mark.parametrize(
    "ended",
    ["2026-11-22T09:00:02.000Z\0", "2026-11-22T09:00:02Z", "2026-11-22T10:00:02.000+01:00", "2026-11-22T09:00:02.5Z"],
)  # fmt: skip
def test_end_of_a_session_has_one_spelling(built: Built, ended: str) -> None:
    """`datetime.fromisoformat` takes the first, with its NUL; the stand-alone verifier did not, but took the last."""
    built.rewrite(ended=ended)
    assert verdicts(built) == (1, 1)


def test_checkpoint_whose_last_line_has_another_end(built: Built) -> None:
    """The stand-alone verifier cut off the last character, whatever it was."""
    assert verdicts(built) == (0, 0)
    for end in ("", " ", "x", "\ud800"):
        built.rewrite(checkpoint=built.manifest.checkpoint[:-1] + end)
        assert verdicts(built) == (1, 1), end


@pytest.mark.parametrize("place", range(14, 40))
def test_certificate_that_the_library_cannot_read_is_not_trusted(built: Built, place: int) -> None:
    """An X.509 version of its own makes an error of its own, which was no ValueError and ended the room's link."""
    der = bytearray(ssl.PEM_cert_to_DER_cert(built.manifest.chain_pem[0]))
    der[place] ^= 0x22
    built.rewrite(chain_pem=(ssl.DER_cert_to_PEM_cert(bytes(der)),))
    assert verdicts(built) == (1, 1)


def test_file_with_a_certificate_of_an_impossible_version_is_named(built: Built, tmp_path: Path) -> None:
    pem = built.manifest.chain_pem[0]
    der = ssl.PEM_cert_to_DER_cert(pem)
    at = der.index(bytes([0xA0, 3, 2, 1, 2]))
    (tmp_path / "odd.pem").write_text(
        ssl.DER_cert_to_PEM_cert(der[:at] + bytes([0xA0, 3, 2, 1, 34]) + der[at + 5 :])
    )
    with pytest.raises(BadConfig, match="is not a certificate"):
        load_certificate(tmp_path / "odd.pem")


@pytest.mark.parametrize(
    "change",
    [
        {"words": "x\ud800"}, {"measured": {"\ud800": 1}}, {"measured": {"x": "\udfff"}}, {"rule": "\ud800"},
    ],
)  # fmt: skip
def test_half_a_surrogate_pair_is_no_text(change: dict[str, Any]) -> None:
    """On the local socket it came as far as the sync process, which ended when it wrote the message for the room."""
    report = observation(1, "k", 1, 2)["report"]
    ObservationReport.model_validate(report)
    with pytest.raises(ValidationError):
        ObservationReport.model_validate({**report, **change})


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"codec":"json"', b'"codec":" son"'),
        (b'"created":"2026', b'"created":" 026'),
        (b'"salt":"', b'"salt":"X'),
    ],
)
def test_header_of_a_wrong_form_is_refused_by_both(built: Built, old: bytes, new: bytes) -> None:
    """By who holds the desk's key: HEADER is in no leaf, and the stand-alone verifier took any codec, time and salt."""
    name = "0-log-0.evf"
    data = built.segment(name).read_bytes().replace(old, new)
    if len(new) > len(old):
        at = data.index(new) + len(new)
        data = data[:at] + data[at + 1 :]
    built.segment(name).write_bytes(data)
    digest = hashlib.sha256(data).hexdigest()
    segments = [
        replace(each, sha256=digest) if each.name == name else each for each in built.manifest.segments
    ]
    built.rewrite(segments=tuple(segments))
    assert verdicts(built) == (1, 1)


@pytest.mark.parametrize("length", ["655\u00b3", "9" * 5000, "+5", "5 ", "", "1_0"])
def test_length_of_a_request_is_digits(length: str) -> None:
    """A superscript is a digit to `str.isdigit` and none to `int`."""
    headers = [(b"content-length", length.encode("latin-1"))]
    scope = {"type": "http", "method": "POST", "scheme": "https", "path": "/", "headers": headers}
    assert isinstance(_problem(scope), BadInput)
    assert _problem({**scope, "headers": [(b"content-length", b"65536")]}) is None


def test_order_in_another_spelling_is_refused() -> None:
    data = canonical(sign_document(COMMAND_PURPOSE, commands()[1], CONTROLLER))
    verify_message(COMMAND_PURPOSE, Command, data, CONTROLLER.public_key())
    for other in (data.replace(b'{"body"', b'{"purpose":"x","body"'), b" " + data, data + b"\n"):
        with pytest.raises(BadInput):
            verify_message(COMMAND_PURPOSE, Command, other, CONTROLLER.public_key())


@pytest.mark.parametrize("text", [DEEP_TOML, HUGE_TOML], ids=["deep", "huge number"])
def test_toml_beyond_all_measure_is_named(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(text)
    with pytest.raises(BadConfig, match="is not TOML"):
        load_config(path, NodeConfig)
    with pytest.raises(BadInput, match="is not TOML"):
        sign_policy_file(path, RootKey("uni", ROOT))


def test_policy_file_nested_without_end_is_a_problem_on_the_page(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_bytes(b"[" * 100_000)
    policy = PolicyFile(path, ROOT.public_key(), "uni")
    assert policy.current() is None
    assert "cannot be used" in str(policy.problem)


def test_stored_witness_with_a_name_that_is_no_text_is_refused() -> None:
    key = PEOPLE.device_key.public_key()
    state = Witness("node/d/session/x", "node/\ud800", key).to_json()
    with pytest.raises(EvidenceBroken):
        Witness.from_json(state, key).accept("a\n0\nb\n\n— node/\ud800 AAAAAAA=\n", 0, [])


def test_topic_that_nobody_subscribed_to_is_ignored() -> None:
    heard: list[Any] = []

    async def take(*said: Any) -> None:
        heard.append(said)

    class Settings:
        broker_tls = False

    link = Link(Settings(), take, lambda *said: heard.append(said))  # type: ignore[arg-type]
    asyncio.run(link._take("invigil/1/room/d1/nonsense", b"{}"))
    assert heard == []


@pytest.mark.parametrize("shape", [(0, 8, 3), (16, 0, 3), (16, 8, 0), (0, 0, 0)])
def test_frame_ring_without_room_for_a_frame_is_refused(tmp_path: Path, shape: tuple[int, int, int]) -> None:
    """A header alone with no slots has the right size, and its newest frame stood in slot n modulo 0."""
    width_px, height_px, slots = shape
    slot_bytes = 64 + -(-width_px * height_px * 3 // 64) * 64
    head = struct.pack("<8sIIII", b"IVRING1\0", *shape, 0).ljust(HEADER_BYTES, b"\1")
    (tmp_path / "frames").write_bytes(head + bytes(slots * slot_bytes))
    with closing(FrameRingReader(tmp_path / "frames")) as reader, pytest.raises(BadInput):
        reader.latest(0)
