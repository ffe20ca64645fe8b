"""A single-node Ceph RGW for contract tests: monitor, one OSD on memstore, gateway with cephx. Up in about 15 s."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from demo.room import free_port, port_answers

REGION = "default"
ACCESS_KEY_ID = "invigil"
SECRET_ACCESS_KEY = "invigil-test-secret"


@dataclass
class CephGateway:
    """A running gateway; `stop` ends its three daemons."""

    folder: Path
    port: int

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        for pid_file in (self.folder / "run").glob("*.pid"):
            try:
                os.kill(int(pid_file.read_text()), signal.SIGKILL)
            except (ProcessLookupError, ValueError):
                continue


def start_ceph(folder: Path) -> CephGateway:
    """Start a fresh cluster under `folder`; its objects live in memory."""
    for name in ("mon", "osd", "run", "rgw"):
        (folder / name).mkdir(parents=True)
    monitor_port, gateway = free_port(), CephGateway(folder, free_port())
    fsid, osd_uuid = str(uuid.uuid4()), str(uuid.uuid4())
    monitor = f"[v2:127.0.0.1:{monitor_port}]"
    (folder / "ceph.conf").write_text(_settings(folder, fsid, monitor, gateway.port))
    keyring = str(folder / "keyring")

    offline = {"ceph-authtool", "monmaptool"}

    def run(*argv: str) -> str:
        done = subprocess.run(
            [argv[0], *([] if argv[0] in offline else ["-c", str(folder / "ceph.conf")]), *argv[1:]],
            capture_output=True, text=True, timeout=60, check=False,
            cwd="/",  # Debian 13's osd looks for its classes in lib/..., relative to where it stands
        )  # fmt: skip
        assert done.returncode == 0, f"{' '.join(argv)}: {done.stderr[-2000:]}"
        return done.stdout

    run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    for name, caps in {
        "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
        "osd.0": {"mon": "allow profile osd", "osd": "allow *"},
        "client.rgw": {"mon": "allow rw", "osd": "allow rwx"},
    }.items():
        flags = [part for daemon, cap in caps.items() for part in ("--cap", daemon, cap)]
        run("ceph-authtool", keyring, "--gen-key", "-n", name, *flags)
    monmap = str(folder / "monmap")
    run("monmaptool", "--create", "--addv", "a", monitor, "--fsid", fsid, monmap)
    run("ceph-mon", "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", keyring)
    run("ceph-mon", "-i", "a")
    run("ceph", "osd", "new", osd_uuid)
    run("ceph", "auth", "import", "-i", keyring)
    run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd_uuid)
    run("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=x")
    run("ceph-osd", "-i", "0")
    run("radosgw", "-n", "client.rgw")
    deadline = time.monotonic() + 90
    while not port_answers(gateway.port):
        assert time.monotonic() < deadline, (folder / "client.rgw.log").read_text()[-2000:]
        time.sleep(0.5)
    user = run(
        "radosgw-admin", "-n", "client.rgw", "user", "create", "--uid", "invigil", "--display-name", "invigil",
        "--access-key", ACCESS_KEY_ID, "--secret", SECRET_ACCESS_KEY,
    )  # fmt: skip
    assert json.loads(user)["user_id"] == "invigil"
    return gateway


def _settings(folder: Path, fsid: str, monitor: str, port: int) -> str:
    return f"""[global]
fsid = {fsid}
mon_initial_members = a
mon_host = {monitor}
auth_cluster_required = cephx
auth_service_required = cephx
auth_client_required = cephx
keyring = {folder}/keyring
run_dir = {folder}/run
admin_socket = {folder}/run/$cluster-$name.$pid.asok
pid_file = {folder}/run/$name.pid
log_file = {folder}/$name.log
crash_dir = {folder}/run
mon_data = {folder}/mon
osd_data = {folder}/osd
rgw_data = {folder}/rgw
osd_pool_default_size = 1
osd_pool_default_min_size = 1
osd_pool_default_pg_num = 8
osd_crush_chooseleaf_type = 0
mon_allow_pool_size_one = true
mon_warn_on_pool_no_redundancy = false
osd_objectstore = memstore
memstore_device_bytes = 1073741824
ms_bind_ipv6 = false
public_addr = 127.0.0.1
cluster_addr = 127.0.0.1
rgw_frontends = beast endpoint=127.0.0.1:{port}
rgw_thread_pool_size = 16
"""
