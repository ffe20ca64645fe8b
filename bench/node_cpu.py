"""CPU of one desk's processes while it records, against ffmpeg encoding the same clip at the same settings beside it.

Run: .venv/bin/python -m bench.node_cpu [seconds]. Both play the clip in real time over the same span; CPU is user +
system.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from demo.clips import MOVING_PERSON as CLIP
from demo.room import DemoRoom, DeskPlan, wait_until

TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid: int) -> float:
    """User + system seconds of a process with all its threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def ffmpeg() -> subprocess.Popen[bytes]:
    """The peer: 720p15, libx264 ultrafast, 1.2 Mbit/s, a key frame every 2 s, to a file in memory."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise SystemExit("invigil: error: ffmpeg is not installed\ninvigil: hint: apt-get install ffmpeg")
    return subprocess.Popen(
        [program, "-v", "error", "-re", "-stream_loop", "-1", "-threads", "1", "-i", str(CLIP), "-an",
         "-vf", "scale=1280:720:flags=fast_bilinear", "-r", "15", "-c:v", "libx264", "-preset", "ultrafast",
         "-tune", "zerolatency", "-threads", "1", "-b:v", "1200k", "-g", "30", "-f", "mp4",
         "-movflags", "frag_keyframe+empty_moov", "-y", "/dev/null"],
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


def main(seconds: float) -> None:
    """Print {"bench": "node_cpu", ...}: shares of one core and ratios against ffmpeg."""
    with tempfile.TemporaryDirectory() as folder:
        desk = DeskPlan("desk-1", "1", f"clip:{CLIP}")
        with DemoRoom(Path(folder), desks=[desk], duration_s=600) as room:
            room.set_up()
            room.start()
            client = room.client()
            room.wait_ready(client)
            client.post("/api/sessions/start", {"desk": "desk-1", "candidate_code": "bench-1"})
            wait_until("recording", lambda: room.recording(client, "desk-1"), 30)
            time.sleep(5)
            peer = ffmpeg()
            time.sleep(3)
            parts = {part: process.pid for part, process in room.nodes["desk-1"].items()}
            pids = {**parts, "ffmpeg": peer.pid}
            begun, first = time.monotonic(), {name: cpu_s(pid) for name, pid in pids.items()}
            time.sleep(seconds)
            span_s = time.monotonic() - begun
            share = {name: (cpu_s(pid) - first[name]) / span_s for name, pid in pids.items()}
            peer.kill()
            peer.wait()
    node = sum(share[part] for part in parts)
    print(
        json.dumps(
            {
                "bench": "node_cpu",
                "seconds": round(span_s, 1),
                "core_share": {name: round(value, 4) for name, value in share.items()},
                "camera_over_ffmpeg": round(share["camera"] / share["ffmpeg"], 2),
                "node_over_ffmpeg": round(node / share["ffmpeg"], 2),
            }
        )
    )


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 40.0)
