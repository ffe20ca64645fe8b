"""Settings files: a wrong one is refused with the file, the key and what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from appliance.config import ArchiveConfig, NodeConfig, RoomConfig, StorageCredentials, load_config
from appliance.errors import BadConfig

NODE = 'institution = "uni"\nroom = "room-2.14"\ndesk = "desk-7"\nbroker_host = "10.0.0.5"\n'
ROOM = 'institution = "uni"\nroom = "room-2.14"\n'
STORAGE = '[storage]\nendpoint = "https://s3.example"\nregion = "eu"\nbucket = "exams"\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "settings.toml"
    path.write_text(text)
    return path


def test_short_node_file_is_enough(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, NODE), NodeConfig)
    assert (config.desk, config.broker_port, config.broker_tls) == ("desk-7", 8883, True)
    assert config.store == Path("/var/lib/invigil/store")


def test_relative_paths_are_taken_from_the_file(tmp_path: Path) -> None:
    text = NODE + 'store = "here"\nrun_dir = "/run/x"\n[trust]\ndevice_key = "k/device.key"\n'
    config = load_config(write(tmp_path, text), NodeConfig)
    assert config.store == tmp_path / "here"
    assert config.run_dir == Path("/run/x")
    assert config.trust.device_key == tmp_path / "k/device.key"
    assert config.trust.room_ca == tmp_path / "trust/room-ca.pem"


def test_paths_inside_an_optional_table_too(tmp_path: Path) -> None:
    config = load_config(write(tmp_path, ROOM + STORAGE), RoomConfig)
    assert config.storage is not None
    assert config.storage.credentials == tmp_path / "storage-credentials.toml"
    assert config.storage.ca is None


@pytest.mark.parametrize(
    ("kind", "text", "key"),
    [
        (NodeConfig, NODE + 'colour = "red"\n', "unknown key colour"),
        (NodeConfig, NODE + '[trust]\npassword = "x"\n', "unknown key trust.password"),
        (RoomConfig, ROOM + '[[desks]]\nid = "d"\nlabel = "1"\nseat = 2\n', "unknown key desks.0.seat"),
        (ArchiveConfig, 'institution = "uni"\n' + STORAGE + 'secret = "x"\n', "unknown key storage.secret"),
        (
            StorageCredentials,
            'access_key_id = "a"\nsecret_access_key = "b"\ntoken = "c"\n',
            "unknown key token",
        ),
        (NodeConfig, NODE.replace("desk = ", "dask = "), "unknown key dask"),
        (NodeConfig, NODE + "broker_port = 70000\n", "broker_port: input should be less"),
        (NodeConfig, NODE + "inference_rate_hz = 0\n", "inference_rate_hz: "),
        (NodeConfig, NODE + "inference_cpu_percent = 9\n", "inference_cpu_percent: "),
        (NodeConfig, NODE + "inference_cpu_percent = 101\n", "inference_cpu_percent: "),
        (NodeConfig, NODE.replace('"desk-7"', '"desk/7"'), "desk: string should match"),
        (NodeConfig, NODE.replace('"desk-7"', '"+"'), "desk: string should match"),
        (RoomConfig, ROOM + STORAGE.replace("https://s3.example", "s3.example"), "storage.endpoint: "),
    ],
)
def test_wrong_key_is_named_with_its_file(tmp_path: Path, kind: type, text: str, key: str) -> None:
    path = write(tmp_path, text)
    with pytest.raises(BadConfig) as caught:
        load_config(path, kind)
    words = str(caught.value)
    assert words.startswith(f"{path}: {key}")
    assert "\n" not in words
    assert caught.value.hint.startswith("known keys: ")


@pytest.mark.parametrize("content", [b"a = = 1", b"\xff\xfe", b"[a\n", b"x"])
def test_what_is_not_toml_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "node.toml"
    path.write_bytes(content)
    with pytest.raises(BadConfig, match="is not TOML") as caught:
        load_config(path, NodeConfig)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"cannot read .*absent\.toml: no such file or directory"):
        load_config(tmp_path / "absent.toml", NodeConfig)
    with pytest.raises(BadConfig, match="is a directory"):
        load_config(tmp_path, NodeConfig)


def test_room_file_in_the_handbook_is_one(tmp_path: Path) -> None:
    """docs/operations.md."""
    text = (Path(__file__).resolve().parents[2] / "docs/operations.md").read_text()
    example = next(
        block for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL) if "[[desks]]" in block
    )
    assert load_config(write(tmp_path, example), RoomConfig).desks[0].id == "desk-7"
