"""What `invigil archive open` writes, for whom, and what it refuses."""

from __future__ import annotations

import hashlib
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from typer.testing import CliRunner, Result

from appliance.archive.cli import app
from appliance.errors import (
    ApplianceError,
    BadInput,
    BadPassphrase,
    EvidenceBroken,
    NotTrusted,
    Refused,
    StoreFailed,
)
from appliance.evf.keys import EpochKey
from appliance.evf.recipients import RecipientSet
from appliance.evf.wraps import WrapContext, wrap_epoch_key
from appliance.evidence.manifest import WrapEntry
from tests.sessions import (
    CREATED,
    GAP_CAUSE,
    INSTITUTION,
    PASSPHRASE,
    POLICY_ID,
    RETAIN_UNTIL,
    SID,
    Built,
    Plan,
    Room,
    build_session,
    default_room,
    key_file,
    representative,
)


@pytest.fixture
def built(tmp_path: Path) -> Built:
    return build_session(tmp_path)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "exam.mp4"


def run(built: Built, *more: str | Path) -> Result:
    return CliRunner().invoke(app, built.arguments("open", *more))


def opened(built: Built, out: Path, *more: str | Path) -> str:
    result = run(built, "--out", out, *more)
    assert result.exit_code == 0, result.exception
    return result.output


def refused(built: Built, out: Path, kind: type[ApplianceError], *more: str | Path) -> str:
    result = run(built, "--out", out, *more)
    assert type(result.exception) is kind, result.exception
    assert "\n" not in str(result.exception)
    assert result.exception.hint
    assert not list(out.parent.glob(".*.part"))
    return str(result.exception)


def test_film_is_one_init_and_every_fragment_in_order(built: Built, out: Path) -> None:
    said = opened(built, out)
    assert out.read_bytes() == built.film.read_bytes()
    assert f"gap: 00:00:12-00:00:42 {GAP_CAUSE}" in said
    assert out.stat().st_mode & 0o077 == 0


def test_film_of_a_real_encoder_plays_through_the_gap(tmp_path: Path, out: Path) -> None:
    init, fragments = _real_fragments(seconds=90)
    plan = Plan(init=init, fragment=lambda second: fragments[second])
    opened(build_session(tmp_path, plan), out)
    with av.open(str(out)) as film:
        times = [float(frame.time) for frame in film.decode(video=0)]
    assert len(times) == 12 * 20
    assert times == sorted(times)
    assert times[0] == pytest.approx(0, abs=0.01)
    # 12 s of film, 30 s of gap, 12 s of film: the film's own clock is the session's
    assert max(np.diff(times)) == pytest.approx(30.1, abs=0.11)
    assert times[-1] == pytest.approx(53.9, abs=0.11)


def test_altered_recording_is_not_opened(built: Built, out: Path) -> None:
    path = built.segment("1-video-0.evf")
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    assert refused(built, out, EvidenceBroken).startswith("1-video-0.evf (00:00:42-00:00:48 of the session)")
    assert not out.exists()


def test_wrong_passphrase(built: Built, out: Path) -> None:
    built.passphrase.write_text(PASSPHRASE + "!\n")
    assert refused(built, out, BadPassphrase) == f"passphrase does not open {built.key}"


@pytest.mark.parametrize("ending", ["", "\n", "\r\n"])
def test_passphrase_file_may_end_in_a_line_break(built: Built, out: Path, ending: str) -> None:
    built.passphrase.write_bytes(PASSPHRASE.encode() + ending.encode())
    opened(built, out)


def test_without_passphrase_file_somebody_must_be_there_to_ask(built: Built, out: Path) -> None:
    arguments = ["open", built.folder, "--key", built.key, "--out", out, "--config", built.config]
    result = CliRunner().invoke(app, [str(part) for part in arguments])
    assert isinstance(result.exception, BadInput)
    assert "passphrase-file" in result.exception.hint


def test_key_of_somebody_else_says_whose_recording_it_is(tmp_path: Path, out: Path) -> None:
    """F083, F084: a key that the institution did not name opens nothing."""
    built = build_session(tmp_path, Plan(recipients=(2, 3)))
    said = refused(built, out, NotTrusted)
    assert "is not among the recipients" in said
    assert f"person 2 ({representative(2).kid[:8]}), person 3 ({representative(3).kid[:8]})" in said


@pytest.mark.parametrize(
    ("signer", "retain_until", "words"),
    [
        (Room().device_key, RETAIN_UNTIL, "signed by another key"),
        (default_room().device_key, "2036-01-01", "another session, institution, policy or retention date"),
    ],
    ids=["another device", "another retention date"],
)
def test_wrap_must_be_the_desks_own_and_of_this_session(
    built: Built, out: Path, signer: Ed25519PrivateKey, retain_until: str, words: str
) -> None:
    """Even where the manifest names its hash; `open` looks into each wrap before it uses one (F111)."""
    name = built.manifest.wraps[0].name
    people = RecipientSet(INSTITUTION, 2, CREATED, (representative(1).representative("person 1"),))
    context = WrapContext(INSTITUTION, SID, 0, "media", CREATED, POLICY_ID, retain_until, 2)
    evk = wrap_epoch_key(EpochKey.generate(), context, people, signer)
    built.wrap().write_bytes(evk)
    entry = WrapEntry(name, hashlib.sha256(evk).hexdigest(), len(evk))
    built.rewrite(wraps=(entry, *built.manifest.wraps[1:]))
    said = refused(built, out, EvidenceBroken)
    assert said.startswith(name)
    assert words in said


def test_recipients_are_named_by_key_id_without_a_recipient_set(tmp_path: Path, out: Path) -> None:
    built = build_session(tmp_path, Plan(recipients=(2,)))
    (tmp_path / "trust" / "recipient-set.json").unlink()
    assert refused(built, out, NotTrusted).endswith(representative(2).kid)


def test_any_recipient_opens(tmp_path: Path, out: Path) -> None:
    built = build_session(tmp_path, Plan(recipients=(2, 1)))
    opened(built, out)
    built.key.write_bytes(key_file(2))
    opened(built, out, "--force")


@pytest.mark.parametrize("content", [b"", b"{}", b"no key", key_file(1)[:-9], b"x" * 20_000])
def test_file_that_is_no_key(built: Built, out: Path, content: bytes) -> None:
    built.key.write_bytes(content)
    assert str(built.key) in refused(built, out, BadInput)


@pytest.mark.parametrize("missing", ["key", "passphrase"])
def test_missing_key_or_passphrase_file(built: Built, out: Path, missing: str) -> None:
    path: Path = getattr(built, missing)
    path.unlink()
    assert f"cannot read {path}" in refused(built, out, BadInput)


def test_existing_file_is_kept_unless_forced(built: Built, out: Path) -> None:
    out.write_bytes(b"mine")
    assert refused(built, out, Refused) == f"{out} exists"
    assert out.read_bytes() == b"mine"
    opened(built, out, "--force")
    assert out.read_bytes() == built.film.read_bytes()


def test_nothing_is_written_into_the_evidence(built: Built) -> None:
    assert "inside the session's folder" in refused(built, built.folder / "segments" / "exam.mp4", BadInput)
    assert "no folder" in refused(built, built.folder.parent / "nowhere" / "exam.mp4", BadInput)


def test_disk_that_takes_no_more_leaves_nothing_behind(built: Built, out: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        said = refused(built, out, StoreFailed)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert said.startswith(f"cannot write {out}: ")
    assert not out.exists()


def test_open_ended_segment_opens_and_says_where_it_stops(tmp_path: Path, out: Path) -> None:
    built = build_session(tmp_path, Plan(open_ended=frozenset({"0-video-1.evf"})))
    said = opened(built, out)
    assert "note: 0-video-1.evf ends without its end record" in said
    assert "everything up to 00:00:12 is in the film" in said
    assert out.read_bytes() == built.film.read_bytes()


def test_other_picture_settings_after_a_restart_are_explained(tmp_path: Path, out: Path) -> None:
    built = build_session(tmp_path, Plan(second_init=b"another init"))
    assert refused(built, out, EvidenceBroken).startswith("1-video-0.evf begins with other picture settings")
    assert not out.exists()


def test_lone_segment(built: Built, out: Path) -> None:
    said = _open_lone(built, built.segment("0-video-1.evf"), out)
    whole = built.film.read_bytes()
    assert said.exit_code == 0
    assert "opened alone, not held against its session's manifest" in said.output
    assert out.read_bytes()[len(Plan().init) :] in whole


def test_lone_segment_with_a_cut_tail_opens_up_to_the_last_whole_record(built: Built, out: Path) -> None:
    path = built.segment("0-video-1.evf")
    path.write_bytes(path.read_bytes()[:-200])
    said = _open_lone(built, path, out)
    assert said.exit_code == 0
    assert re.search(
        r"note: 0-video-1.evf is cut: file ends inside record 3; .* begins at 00:00:08", said.output
    )
    plan = Plan()
    assert out.read_bytes() == plan.init + plan.fragment(6) + plan.fragment(8)


def test_lone_segment_with_a_flipped_bit_is_refused(built: Built, out: Path) -> None:
    path = built.segment("0-video-1.evf")
    data = bytearray(path.read_bytes())
    data[-300] ^= 1
    path.write_bytes(data)
    said = _open_lone(built, path, out)
    assert isinstance(said.exception, EvidenceBroken)
    assert not out.exists()


def test_lone_segment_without_its_wrap(built: Built, out: Path) -> None:
    built.wrap().unlink()
    said = _open_lone(built, built.segment("0-video-1.evf"), out)
    assert isinstance(said.exception, BadInput)
    assert f"no {SID}.0.media.evk beside" in str(said.exception)


@pytest.mark.slow
def test_memory_stays_flat_over_300_mb(tmp_path: Path, out: Path) -> None:
    """A three-hour exam must open on any laptop: what is in memory is one record."""
    chunk = bytes(range(256)) * 4096 * 2  # 2 MiB, 150 of them
    built = build_session(tmp_path, Plan(epochs=1, segments=30, fragments=5, fragment=lambda _second: chunk))
    small_out = tmp_path / "small.mp4"
    (tmp_path / "small").mkdir()
    small = build_session(
        tmp_path / "small", Plan(epochs=1, segments=1, fragments=1, fragment=lambda _s: chunk)
    )
    peak_small_kib = _peak_kib(small.arguments("open", "--out", small_out))
    peak_kib = _peak_kib(built.arguments("open", "--out", out))
    assert out.stat().st_size > 300_000_000
    assert peak_kib - peak_small_kib < 40_000, f"{peak_small_kib} KiB for 2 MB, {peak_kib} KiB for 300 MB"
    # control: the same measure sees somebody who holds the film in memory
    greedy = f"import pathlib; film = pathlib.Path({str(out)!r}).read_bytes()"
    assert (
        _peak_kib(small.arguments("open", "--out", small_out, "--force"), greedy) - peak_small_kib > 250_000
    )


def _peak_kib(arguments: list[str], before: str = "") -> int:
    # not getrusage: its ru_maxrss survives exec and so begins at the size of the process that runs the tests
    code = (
        f"{before}\n"
        "import pathlib, re, sys\n"
        "from appliance.archive.cli import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(re.search(r'VmHWM:\\s+(\\d+) kB', pathlib.Path('/proc/self/status').read_text())[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], check=True, capture_output=True, text=True, timeout=120
    )
    return int(done.stdout.splitlines()[-1])


def _open_lone(built: Built, segment: Path, out: Path) -> Result:
    arguments = built.arguments("open", "--out", out)
    arguments[1] = str(segment)
    return CliRunner().invoke(app, arguments)


def _real_fragments(seconds: int) -> tuple[bytes, dict[int, bytes]]:
    """H.264 of a moving bar, 10 Hz, in 2 s fragments by the second at which each begins."""
    written = bytearray()

    class Sink:
        def write(self, data: bytes) -> int:
            written.extend(data)
            return len(data)

    options = {"movflags": "empty_moov+default_base_moof+frag_keyframe+frag_discont+skip_trailer"}
    sink: Any = Sink()
    with av.open(sink, "w", format="mp4", options=options) as container:
        stream = container.add_stream(
            "libx264", rate=10, options={"g": "20", "bf": "0", "preset": "ultrafast"}
        )
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(seconds * 10):
            picture = np.zeros((48, 64, 3), np.uint8)
            picture[:, number % 64] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    boxes = []
    data = bytes(written)
    while data:
        size = int.from_bytes(data[:4], "big")
        boxes.append(data[:size])
        data = data[size:]
    assert [box[4:8] for box in boxes[:2]] == [b"ftyp", b"moov"]
    pairs = list(zip(boxes[2::2], boxes[3::2], strict=True))
    return boxes[0] + boxes[1], {2 * number: moof + mdat for number, (moof, mdat) in enumerate(pairs)}
