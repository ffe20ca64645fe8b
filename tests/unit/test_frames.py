"""The frame ring: order, losses, torn reads and SIGKILL of either side, with real processes; never on a disk."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from appliance import frames as frames_module
from appliance.errors import BadConfig, BadInput, NoSpace
from appliance.frames import HEADER_BYTES, NEWEST, NEWEST_AT, SLOT, FrameRingReader, FrameRingWriter
from appliance.frames import _pixels as raw_pixels

WIDTH_PX, HEIGHT_PX = 640, 360
LIMIT_S = 20.0


@pytest.fixture
def ring() -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="invigil-test-", dir="/dev/shm"))
    yield directory / "frames"
    shutil.rmtree(directory)


def grey(value: int) -> np.ndarray:
    return np.full((HEIGHT_PX, WIDTH_PX, 3), value % 256, np.uint8)


def writing(ring: Path, slots: int = 8) -> FrameRingWriter:
    return FrameRingWriter(ring, WIDTH_PX, HEIGHT_PX, slots)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, "nothing came"


# --- one process


def test_newest_frame_is_read_with_its_time(ring: Path) -> None:
    with writing(ring) as writer:
        reader = FrameRingReader(ring)
        assert reader.latest(0) is None
        assert writer.write(grey(7), taken_mono_ns=123) == 1
        frame = reader.latest(0)
        assert (frame.sequence, frame.taken_mono_ns) == (1, 123)
        assert frame.image.shape == (HEIGHT_PX, WIDTH_PX, 3)
        assert (frame.image == 7).all()
        assert reader.latest(1) is None


def test_slow_reader_gets_the_newest_and_counts_what_it_lost(ring: Path) -> None:
    with writing(ring, slots=4) as writer:
        reader = FrameRingReader(ring)
        writer.write(grey(1), 1)
        reader.latest(0)
        for number in range(2, 31):
            writer.write(grey(number), number)
        assert reader.latest(1).sequence == 30
        assert reader.lost_frames == 28
        writer.write(grey(31), 31)
        assert reader.latest(30).sequence == 31
        assert reader.lost_frames == 28


def test_a_frame_is_the_ring_s_own_memory_and_cannot_be_written_to(ring: Path) -> None:
    with writing(ring) as writer:
        writer.write(grey(1), 1)
        reader = FrameRingReader(ring)
        image = reader.latest(0).image
        at = HEADER_BYTES + writer._slot_bytes
        mapped = np.frombuffer(reader._memory, np.uint8)
        assert np.shares_memory(image, mapped[at : at + writer._slot_bytes])
        assert not image.flags.writeable


def test_a_frame_that_is_written_over_while_it_is_read_is_noticed(ring: Path) -> None:
    """From the frame before its slot's next one: from then on the writer may be in it."""
    with writing(ring, slots=4) as writer:
        writer.write(grey(1), 1)
        frame = FrameRingReader(ring).latest(0)
        for number in range(2, 4):
            writer.write(grey(number), number)
            assert frame.is_whole()
        writer.write(grey(4), 4)
        assert not frame.is_whole()
        assert (frame.image == 1).all()
        writer.write(grey(5), 5)
        assert not frame.is_whole()
        assert (frame.image == 5).all()


def test_a_frame_that_is_held_stays_readable_when_the_ring_goes_and_another_comes(ring: Path) -> None:
    reader = FrameRingReader(ring)
    with writing(ring) as writer:
        writer.write(grey(1), 1)
        frame = reader.latest(0)
    with writing(ring) as writer:
        writer.write(grey(2), 2)
        assert (reader.latest(0).image == 2).all()
    reader.close()
    assert frame.is_whole()
    assert (frame.image == 1).all()


def test_odd_sizes_fit(ring: Path) -> None:
    image = np.arange(7 * 5 * 3, dtype=np.uint8).reshape(5, 7, 3)
    with FrameRingWriter(ring, 7, 5) as writer:
        writer.write(image, 1)
        assert (FrameRingReader(ring).latest(0).image == image).all()


@pytest.mark.parametrize("half_written", [0, 3])
def test_a_frame_is_not_taken_for_whole_while_the_writer_sets_its_number(
    ring: Path, half_written: int
) -> None:
    """`pack_into` clears, then writes byte by byte: 2 of 317,000 looks on busy cores took a torn frame for whole."""
    with writing(ring, slots=2) as writer:
        for number in range(300):
            writer.write(grey(number), number)
        frame = FrameRingReader(ring).latest(0)
        assert frame is not None
        assert frame.is_whole()
        NEWEST.pack_into(writer._memory, NEWEST_AT, half_written)
        assert not frame.is_whole()


def test_a_view_that_is_not_contiguous_is_written_right(ring: Path) -> None:
    wide = np.random.default_rng(1).integers(0, 256, (HEIGHT_PX, WIDTH_PX * 2, 3), np.uint8)
    with writing(ring) as writer:
        writer.write(wide[:, ::2], 1)
        assert (FrameRingReader(ring).latest(0).image == wide[:, ::2]).all()


@pytest.mark.parametrize("image", [np.zeros((360, 640), np.uint8), np.zeros((360, 640, 3), np.float32)])
def test_wrong_image_is_refused(ring: Path, image: np.ndarray) -> None:
    with writing(ring) as writer, pytest.raises(ValueError, match="ring takes"):
        writer.write(image, 1)


def test_reader_may_come_before_the_writer_and_stay_after_it(ring: Path) -> None:
    reader = FrameRingReader(ring)
    assert reader.latest(0) is None
    with writing(ring) as writer:
        writer.write(grey(1), 1)
        assert reader.latest(0).sequence == 1
    assert reader.latest(1) is None


def test_close_leaves_no_picture_behind(ring: Path) -> None:
    """F118."""
    writer = writing(ring)
    writer.close()
    writer.close()
    assert list(ring.parent.iterdir()) == []


def test_a_writer_that_was_replaced_does_not_remove_its_successor(ring: Path) -> None:
    old = writing(ring)
    with writing(ring):
        old.close()
        assert ring.exists()


def test_new_writer_begins_at_1_and_the_reader_follows_with_its_old_number(ring: Path) -> None:
    first = writing(ring)
    reader = FrameRingReader(ring)
    for number in range(500):
        first.write(grey(number), number)
    assert reader.latest(0).sequence == 500
    with FrameRingWriter(ring, 320, 180) as second:
        assert reader.latest(500) is None
        second.write(np.zeros((180, 320, 3), np.uint8), 9)
        frame = reader.latest(500)
        assert (frame.sequence, frame.image.shape) == (1, (180, 320, 3))
        assert reader.latest(1) is None
    assert reader.lost_frames == 0
    first.close()


def test_mode_is_private_unless_the_group_is_let_in(ring: Path) -> None:
    for mode in (0o600, 0o660):
        before = os.umask(0o077)
        try:
            with FrameRingWriter(ring, 8, 8, mode=mode):
                assert stat.S_IMODE(ring.stat().st_mode) == mode
        finally:
            os.umask(before)


def test_other_files_are_no_ring(ring: Path) -> None:
    for content in (b"", b"x" * 63, b"x" * 4096, frames_module.MAGIC.ljust(4096, b"\1")):
        ring.write_bytes(content)
        with pytest.raises(BadInput, match="not a frame ring"):
            FrameRingReader(ring).latest(0)


def test_a_frame_whose_pixels_changed_after_its_version_is_dropped(ring: Path) -> None:
    """What ARM's store order may show: version and sequence agree, pixels do not."""
    with writing(ring, slots=2) as writer:
        writer.write(grey(1), 1)
        reader = FrameRingReader(ring)
        raw_pixels(writer._memory, HEADER_BYTES + writer._slot_bytes, writer._slot_bytes)[1000] ^= 1
        assert reader.latest(0) is None
        assert reader.torn_reads == 3
        raw_pixels(writer._memory, HEADER_BYTES + writer._slot_bytes, writer._slot_bytes)[1000] ^= 1
        assert reader.latest(0).sequence == 1


def test_a_slot_that_is_being_written_is_dropped(ring: Path) -> None:
    with writing(ring, slots=2) as writer:
        writer.write(grey(1), 1)
        slot_at = HEADER_BYTES + writer._slot_bytes
        SLOT.pack_into(writer._memory, slot_at, 5, 0, 0, 0)
        assert FrameRingReader(ring).latest(0) is None


# --- F085: never on a disk


def test_f085_directory_on_a_disk_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match="would lie on a disk") as caught:
        writing(tmp_path / "frames")
    assert "/dev/shm" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_f085_a_link_from_memory_to_a_disk_is_refused(ring: Path, tmp_path: Path) -> None:
    (ring.parent / "link").symlink_to(tmp_path)
    with pytest.raises(BadConfig, match="would lie on a disk"):
        writing(ring.parent / "link" / "frames")


def test_f085_a_link_in_the_ring_s_place_is_replaced_and_not_followed(ring: Path, tmp_path: Path) -> None:
    target = tmp_path / "disk"
    target.write_bytes(b"before")
    ring.symlink_to(target)
    with writing(ring) as writer:
        writer.write(grey(1), 1)
        assert not ring.is_symlink()
    assert target.read_bytes() == b"before"


def test_absent_directory_is_named(ring: Path) -> None:
    with pytest.raises(BadConfig, match="cannot be used"):
        writing(ring.parent / "none" / "frames")


def test_full_memory_is_an_error_at_the_beginning(ring: Path) -> None:
    with pytest.raises(NoSpace):
        FrameRingWriter(ring, 2**15, 2**15, slots=2**10)
    assert list(ring.parent.iterdir()) == []


# --- several processes

WRITER = """
import sys, numpy as np
from pathlib import Path
from appliance.frames import FrameRingWriter
writer = FrameRingWriter(Path(sys.argv[1]), 640, 360, slots=2)
image = np.empty((360, 640, 3), np.uint8)
number = 0
while True:
    number += 1
    image[...] = number % 256
    writer.write(image, number)
"""

READER = """
import sys
from pathlib import Path
from appliance.frames import FrameRingReader
reader = FrameRingReader(Path(sys.argv[1]))
last = 0
while True:
    frame = reader.latest(last)
    if frame is not None:
        last = frame.sequence
        uneven = (frame.image != frame.image[0, 0, 0]).any()
        if uneven and frame.is_whole():
            sys.exit(2)
        print(last, flush=True)
"""


@pytest.fixture
def start(ring: Path) -> Iterator[Callable[[str], subprocess.Popen[str]]]:
    running: list[subprocess.Popen[str]] = []

    def starting(script: str) -> subprocess.Popen[str]:
        running.append(
            subprocess.Popen([sys.executable, "-c", script, str(ring)], stdout=subprocess.PIPE, text=True)
        )
        return running[-1]

    yield starting
    for process in running:
        process.kill()
        process.wait()
        process.stdout.close()


def test_no_torn_frame_passes_while_the_writer_never_waits(
    ring: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    start(WRITER)
    reader = FrameRingReader(ring)
    good = last = written_over = 0
    until(ring.exists)
    end = time.monotonic() + LIMIT_S
    while (good < 100 or written_over < 5 or reader.torn_reads < 5) and time.monotonic() < end:
        # Number 0 reads the same frame again and again, so that one core alone also switches in mid-reading.
        frame = reader.latest(0)
        if frame is None:
            continue
        even = (frame.image == frame.taken_mono_ns % 256).all()
        if not frame.is_whole():
            written_over += 1
            continue
        assert even
        assert frame.sequence == frame.taken_mono_ns >= last
        last = frame.sequence
        good += 1
    assert good >= 100
    assert written_over >= 5
    assert reader.torn_reads >= 5


def test_negative_control_copies_without_the_checks_are_torn(
    ring: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    start(WRITER)
    reader = FrameRingReader(ring)
    until(lambda: reader.latest(0) is not None)

    def torn() -> bool:
        (newest,) = NEWEST.unpack_from(reader._memory, NEWEST_AT)
        slot_at = HEADER_BYTES + newest % 2 * reader._slot_bytes
        pixels = raw_pixels(reader._memory, slot_at, reader._slot_bytes).copy()
        return bool((pixels != pixels[0]).any())

    until(torn)


def test_killed_writer_leaves_a_readable_ring_and_its_successor_is_followed(
    ring: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    reader = FrameRingReader(ring)
    last = 0
    for _ in range(3):
        writer = start(WRITER)
        inode = ring.stat().st_ino if ring.exists() else 0
        until(lambda inode=inode: ring.exists() and ring.stat().st_ino != inode)
        good = 0
        while good < 20:
            frame = reader.latest(last)
            even = frame is not None and (frame.image == frame.taken_mono_ns % 256).all()
            if frame is not None and frame.is_whole():
                assert even
                last, good = frame.sequence, good + 1
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        frame = reader.latest(0)
        assert frame is not None
        assert (frame.image == frame.taken_mono_ns % 256).all()
        last = frame.sequence


def test_killed_reader_does_not_hold_the_writer_and_the_next_reads_on(
    ring: Path, start: Callable[[str], subprocess.Popen[str]]
) -> None:
    with writing(ring, slots=2) as writer:
        for _ in range(2):
            reader = start(READER)

            def reads(reader: subprocess.Popen[str] = reader) -> bool:
                writer.write(grey(writer._sequence), 1)
                return bool(select.select([reader.stdout], [], [], 0)[0])

            until(reads)
            assert reader.poll() is None
            reader.send_signal(signal.SIGKILL)
            assert reader.wait() == -signal.SIGKILL
            for number in range(50):
                writer.write(grey(number), 1)
            assert FrameRingReader(ring).latest(0).sequence == writer._sequence
