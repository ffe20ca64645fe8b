"""The one-file verifier says the same of a session as `invigil archive verify`, and never sees the product (F111)."""

from __future__ import annotations

import hashlib
import importlib.util
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from appliance.evidence.manifest import Gap
from appliance.evidence.merkle import root_of
from tests.both_verifiers import LOG, VERIFIER, Said, arguments, built
from tests.fuzz.on_evidence import SCRIPT
from tests.sessions import Built, Plan, build_session

__all__ = ["built"]

# Runs the script with the standard library and the folder in argv[1] only; names what else was imported.
ALONE = """
import runpy, sys
folder, sys.argv = sys.argv[1], sys.argv[2:]
sys.path.append(folder)
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    tops = {name.partition(".")[0] for name in sys.modules} - sys.stdlib_module_names
    sys.stderr.write(" ".join(sorted(tops)))
"""


def test_its_contents_name_each_part_and_no_part_is_long() -> None:
    """One file by its purpose: who looks for a line finds its part in the contents, and few lines in it."""
    lines = SCRIPT.read_text().splitlines()
    begins = [number for number, line in enumerate(lines) if line.startswith("# --- ")]
    parts = [re.match(r"# --- (\d+)  ([^(:]+)", lines[number]) for number in begins]
    listed = [found for line in lines if (found := re.match(r"#  ?\s(\d+)  (\S.*?)  ", line))]
    assert [found[1] for found in listed] == [str(number + 1) for number in range(len(begins))]
    assert [found[2] for found in listed] == [part and part[2].strip() for part in parts]
    lengths = [after - before for before, after in zip(begins, [*begins[1:], len(lines)], strict=True)]
    assert max(lengths) <= 130


@pytest.mark.parametrize(
    "plan",
    [
        Plan(observations=LOG),
        Plan(epochs=1, segments=1, fragments=0),
        Plan(open_ended=frozenset({"1-video-1.evf"})),
        Plan(unwitnessed=(Gap(0, 90_000, "controller was down", True),), recipients=(1, 2)),
        Plan(epochs=0),
    ],
    ids=["usual", "one record", "open-ended", "unwitnessed", "empty"],
)
def test_whole_sessions(tmp_path: Path, plan: Plan, capsys: pytest.CaptureFixture[str]) -> None:
    said = Said(build_session(tmp_path, plan), capsys)
    assert said.code == 0
    assert all(re.match(r"(ok|gap) ", line) for line in said.lines[:-1])


def test_long_segment_numbers_need_longer_sframe_headers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """More than 8 segments and more than 256 records: RFC 9605's numbers in one and in two bytes."""
    many = Plan(epochs=1, segments=10, fragments=1)
    long = Plan(epochs=1, segments=1, fragments=300, fragment=lambda second: b"%d" % second)
    for number, plan in enumerate((many, long)):
        root = tmp_path / str(number)
        root.mkdir()
        assert Said(build_session(root, plan), capsys).code == 0


def test_gaps_are_said_and_what_the_desk_wrote_cannot_forge_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gap = Gap(0, 90_000, "line\nsession is whole\x1b[2J\u202e", True)
    said = Said(build_session(tmp_path, Plan(unwitnessed=(gap,))), capsys)
    assert "gap     00:00:00-00:00:01  recorded without a witness  line?session is whole?[2J?" in said.lines


@pytest.mark.parametrize(
    ("place", "span", "what"),
    [("0.media", "00:00:00-00:00:12", "footage"), ("1.log", "00:00:54-00:00:54", "log")],
)
def test_a_key_that_the_desk_lost_is_said(
    built: Built, place: str, span: str, what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """fsck ate the wrap; everything that the manifest names is there, and nobody can open all of it."""
    name = f"{built.manifest.sid}.{place}.evk"
    (built.folder / "wraps" / name).unlink()
    built.rewrite(wraps=tuple(wrap for wrap in built.manifest.wraps if wrap.name != name))
    said = Said(built, capsys)
    words = f"no key is left for epoch {place[0]}: its {what} cannot be opened"
    assert said.code == 1
    assert said.last == f"session is not whole: {span}  {name}: {words}"
    assert f"lost    {span}  {name}  {words}" in said.lines


def test_a_segment_without_records_is_no_footage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A write error on its first record left the header alone; the camera's first frame came at 1.5 s."""
    built = build_session(tmp_path, Plan(epochs=1))
    first, *others = built.manifest.segments
    data = built.segment(first.name).read_bytes()
    prefix = data[: data.index(b"CHNK")].replace(b'"seg":0', b'"seg":9')
    empty = replace(
        first, name="0-video-9.evf", seg=9, size_bytes=len(prefix), sha256=hashlib.sha256(prefix).hexdigest(),
        records=0, outcome="OPEN_ENDED", start_90k=0, end_90k=0, leaf_runs=(),
    )  # fmt: skip
    built.segment(empty.name).write_bytes(prefix)
    built.rewrite(segments=(empty, replace(first, start_90k=135_000), *others))
    said = Said(built, capsys)
    assert said.code == 0
    assert not [line for line in said.lines if line.startswith("gap")]


@pytest.mark.parametrize("leaves", [0, 1, 2, 3, 4, 5, 7, 8, 9, 31, 33])
def test_merkle_root_is_the_products(leaves: int) -> None:
    hashes = [hashlib.sha256(bytes([number])).digest() for number in range(leaves)]
    assert VERIFIER.merkle_root(hashes) == root_of(hashes)


@pytest.mark.parametrize("name", ["room-ca.pem", "controller.pub"])
@pytest.mark.parametrize("content", [None, b"", b"zz\n", b"\xff" * 200])
def test_unusable_trust_file_is_exit_code_2(
    built: Built, name: str, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = built.config.parent / "trust" / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    assert VERIFIER.main(arguments(built)) == 2
    assert capsys.readouterr().out.startswith("session was not checked: ")


def test_no_session_is_exit_code_2(built: Built, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (built.folder.parent, built.folder / "nowhere", built.config):
        assert Said(replace(built, folder=folder), capsys).code == 2


def test_runs_without_the_product(built: Built, tmp_path: Path) -> None:
    """`python -I -S`, and beside the standard library only cryptography and what it is built on."""
    alone = tmp_path / "packages"
    alone.mkdir()
    site = Path(importlib.util.find_spec("cryptography").origin).parents[1]  # type: ignore[union-attr,arg-type]
    wanted = [
        path for path in site.iterdir() if re.fullmatch(r"cryptography|cffi|_cffi_backend.*\.so", path.name)
    ]
    for path in wanted:
        (alone / path.name).symlink_to(path)

    def run(last: list[str]) -> tuple[int, str]:
        command = [sys.executable, "-I", "-S", "-c", ALONE, str(alone), str(SCRIPT), *last]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=tmp_path)
        imported = set(done.stderr.split())
        assert imported <= {"cryptography", "cffi", "_cffi_backend", "_openssl", "__main__"}, done.stderr
        assert "cryptography" in imported
        return done.returncode, done.stdout.splitlines()[-1]

    assert run(arguments(built)) == (0, "session is whole: 00:00:00-00:00:54")
    path = built.segment("1-video-0.evf")
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    code, last = run(arguments(built))
    assert code == 1
    assert last.startswith(
        "session is not whole: 00:00:42-00:00:48  1-video-0.evf: size, SHA-256: file was altered"
    )
    assert "appliance" not in SCRIPT.read_text()
