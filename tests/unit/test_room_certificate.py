"""From a desk's manifest to the page and the QR code that a candidate photographs; HTTP without sockets."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import sqlite_utils

from appliance.evf.canonical import canonical
from appliance.evf.signed import sign_document
from appliance.evidence.certificate import Certificate
from appliance.evidence.certifying import DESK_PURPOSE, require_manifest, sign_as_desk, verify_certificate
from appliance.evidence.manifest import Gap, verify_manifest
from appliance.protocol import ManifestMessage
from appliance.room.certificates import qr_symbol
from appliance.room.database import Database
from tests.unit.test_room_kit import Browser, Kit, end, make_kit, start

SCALE_PX = 4  # of a module, as on a page 1280 px wide


@pytest.fixture
def kit(tmp_path: Path) -> Iterator[Kit]:
    with closing(make_kit(tmp_path)) as made:
        made.ready("d1", "d2")
        yield made


def ended(kit: Kit, browser: Browser, desk: str = "d1") -> str:
    sid = start(browser, desk)
    end(kit, browser, sid, desk)
    return sid


def session(browser: Browser, sid: str) -> dict[str, Any]:
    return next(s for s in browser.get("/api/room").json()["sessions"] if s["sid"] == sid)


def needs(browser: Browser) -> str:
    return " ".join(need["words"] for need in browser.get("/api/room").json()["needs"])


def drawn(text: str) -> Any:
    """The QR code as pixels, grey."""
    out = BytesIO()
    qr_symbol(text).save(out, kind="png", scale=SCALE_PX, border=4)
    return cv2.imdecode(np.frombuffer(out.getvalue(), np.uint8), cv2.IMREAD_GRAYSCALE)


def photographed(image: Any) -> Any:
    """Tilted, two thirds as bright, blurred and noisy, 1.6 pixels of the camera to one of the screen."""
    side = image.shape[0]
    corners = np.array([[0, 0], [side, 0], [side, side], [0, side]], np.float32)
    seen = np.array([[150, 120], [1060, 170], [1030, 1080], [120, 1010]], np.float32)
    tilted = cv2.warpPerspective(
        image, cv2.getPerspectiveTransform(corners, seen), (1200, 1200), borderValue=200
    )
    blurred = cv2.GaussianBlur(tilted, (0, 0), 1.0)
    noise = np.random.default_rng(7).normal(0, 6, blurred.shape)
    return np.clip(blurred * 0.7 + 30 + noise, 0, 255).astype(np.uint8)


def decoded(image: Any) -> str:
    """As another program reads it; OpenCV's older detector misses some clean codes of this size."""
    return str(cv2.QRCodeDetectorAruco().detectAndDecode(image)[0])


def test_certificate_is_signed_shown_and_verifies(kit: Kit) -> None:
    """F016: pseudonyms only, also on the page that the candidate photographs."""
    proctor = kit.logged_in("proctor")
    sid = start(proctor, name="Ada Lovelace")
    end(kit, proctor, sid)
    data = kit.certify("d1", sid, segments=(), gaps=(Gap(90_000, 270_000, "camera lost", False),))
    assert session(proctor, sid)["certificate"] is True
    answer = proctor.get(f"/api/certificates/{sid}")
    assert answer.headers["content-disposition"].startswith("attachment")
    certificate = Certificate.parse(answer.content)
    keys = kit.room.keys
    verify_certificate(certificate, keys.room_ca, keys.signing.public_key())
    manifest = verify_manifest(data, keys.room_ca, keys.signing.public_key())
    assert require_manifest(certificate.body, manifest, data) == certificate.lines
    page = proctor.get(f"/certificates/{sid}").text
    for words in ("With gaps", "camera lost", "00:00:01–00:00:03", certificate.desk_key_id, "C-d1", "<svg"):
        assert words in page, words
    assert "Ada" not in page
    [text] = re.findall(r'id="text">(INVIGIL1:[A-Z2-7]+)<', page)
    assert text == certificate.to_text()
    assert f'href="/certificates/{sid}"' in proctor.get("/end").text
    assert proctor.get("/api/desks/d1").json()["certified"] == sid
    assert f'href="/certificates/{sid}"' in proctor.get("/desk/d1").text


def test_qr_code_decodes_and_is_small_enough_for_a_screen(kit: Kit) -> None:
    """Version 22 is 105 modules a side: on the page at least 4 px each."""
    proctor = kit.logged_in("proctor")
    sid = ended(kit, proctor)
    kit.certify("d1", sid, segments=())
    text = Certificate.parse(proctor.get(f"/api/certificates/{sid}").content).to_text()
    symbol = qr_symbol(text)
    assert symbol.mode == "alphanumeric"
    assert int(symbol.version) <= 23, (symbol.designator, len(text))
    assert decoded(drawn(text)) == text
    assert decoded(photographed(drawn(text))) == text
    verify_certificate(
        Certificate.parse(decoded(drawn(text)).encode()),
        kit.room.keys.room_ca,
        kit.room.keys.signing.public_key(),
    )


def test_longest_names_still_fit_a_code_that_decodes(tmp_path: Path) -> None:
    """A policy's exam and a candidate's code may have 64 characters each."""
    with closing(make_kit(tmp_path, exam="e" * 30 + "-2026-" + "xy" * 14)) as kit:
        kit.ready("d1")
        proctor = kit.logged_in("proctor")
        code = "".join(f"{n:02x}" for n in range(100, 132))
        sid = proctor.post("/api/sessions/start", {"desk": "d1", "candidate_code": code}).json()["sid"]
        end(kit, proctor, sid)
        kit.certify("d1", sid, segments=(), exam="e" * 30 + "-2026-" + "xy" * 14)
        text = Certificate.parse(proctor.get(f"/api/certificates/{sid}").content).to_text()
        assert int(qr_symbol(text).version) <= 26
        assert decoded(photographed(drawn(text))) == text


def test_staff_may_show_it_and_strangers_may_not(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = ended(kit, proctor)
    kit.certify("d1", sid, segments=())
    assert kit.logged_in("staff").get(f"/certificates/{sid}").status_code == 200
    assert kit.client().get(f"/certificates/{sid}").status_code == 303
    assert kit.client().get(f"/api/certificates/{sid}").status_code == 401


def test_before_the_end_the_page_says_why_there_is_none(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = start(proctor)
    assert "the session is under way" in proctor.get(f"/certificates/{sid}").text
    end(kit, proctor, sid)
    assert "it is being made" in proctor.get(f"/certificates/{sid}").text
    assert proctor.get(f"/api/certificates/{sid}").status_code == 400
    assert proctor.get(f"/certificates/{'ab' * 16}").status_code == 400


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ({"outcome": "complete", "lines": 0}, "says outcome 'complete', the manifest 'with gaps'"),
        ({"candidate_code": "C-d2"}, "says candidate_code 'C-d2', the manifest 'C-d1'"),
        (None, "its software is older than the room's"),
    ],
)
def test_a_desk_that_says_something_else_gets_no_signature_and_the_room_is_told(
    kit: Kit, said: dict[str, Any] | None, words: str
) -> None:
    proctor = kit.logged_in("proctor")
    sid = ended(kit, proctor)
    room_kept = kit.intake.message

    async def altered(desk: str, message: Any) -> None:
        if isinstance(message, ManifestMessage) and message.certificate is not None:
            body = json.loads(message.certificate)["body"] | (said or {})
            half = canonical(sign_document(DESK_PURPOSE, body, kit.device_keys[desk])).decode()
            message = message.model_copy(update={"certificate": half if said else None})
        await room_kept(desk, message)

    kit.intake.message = altered  # type: ignore[method-assign]
    data = kit.certify("d1", sid, segments=())
    entry = session(proctor, sid)
    assert (entry["certified"], entry["certificate"]) == (True, False)
    assert words in entry["certificate_problem"]
    assert "Seat 1: there is no certificate for its candidate" in needs(proctor)
    assert words in proctor.get("/end").text.replace("&#39;", "'")
    assert words in proctor.get(f"/certificates/{sid}").text.replace("&#39;", "'")
    # the manifest stands, so what was recorded can be approved; an updated desk says its half again
    kit.intake.message = room_kept  # type: ignore[method-assign]
    keys = kit.room.keys
    manifest = verify_manifest(data, keys.room_ca, keys.signing.public_key())
    half = sign_as_desk(manifest, data, kit.device_keys["d1"]).decode()
    other = data.replace(b"C-d1", b"C-d9").decode()
    kit.hear("d1", ManifestMessage(sid=sid, manifest=other, certificate=half))
    assert session(proctor, sid)["certificate"] is False
    kit.hear("d2", ManifestMessage(sid=sid, manifest=data.decode(), certificate=half))
    assert session(proctor, sid)["certificate"] is False
    kit.hear("d1", ManifestMessage(sid=sid, manifest=data.decode(), certificate=half))
    assert session(proctor, sid)["certificate"] is True
    assert "certificate" not in needs(proctor)


def test_a_certificate_once_signed_stands(kit: Kit) -> None:
    proctor = kit.logged_in("proctor")
    sid = ended(kit, proctor)
    data = kit.certify("d1", sid, segments=())
    before = proctor.get(f"/api/certificates/{sid}").content
    kit.hear("d1", ManifestMessage(sid=sid, manifest=data.decode(), certificate="nonsense"))
    assert proctor.get(f"/api/certificates/{sid}").content == before


def test_a_message_of_an_older_desk_is_still_one() -> None:
    assert (
        ManifestMessage.model_validate_json('{"sid":"%s","manifest":"{}"}' % ("ab" * 16)).certificate is None
    )


def test_sessions_of_an_older_room_keep_their_gaps(tmp_path: Path) -> None:
    """A room.db from before certificates: a gap's yes or no becomes its kind."""
    path = tmp_path / "room.db"
    Database(path).close()
    with closing(sqlite_utils.Database(path)) as db:
        db.execute("ALTER TABLE sessions DROP COLUMN certificate")
        db.execute("ALTER TABLE sessions DROP COLUMN certificate_problem")
        db.execute("DELETE FROM _sqlite_migrations WHERE name = '0002_certificate'")
        db.table("sessions").insert(
            {"sid": "ab" * 16, "desk": "d1", "candidate_code": "C", "policy": "{}", "started_at": "x",
             "started_by": "y", "gaps": json.dumps([[1, 2, "a", False], [3, 4, "b", True]])}
        )  # fmt: skip
        db.conn.commit()
    database = Database(path)
    row = database.transact(lambda c: c.execute("SELECT gaps, certificate FROM sessions").fetchone())
    database.close()
    assert json.loads(row["gaps"]) == [[1, 2, "a", "gap"], [3, 4, "b", "unwitnessed"]]
    assert row["certificate"] is None
