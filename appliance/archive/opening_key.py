"""A representative's key file opened with its passphrase; imports little, so that the work begins at once."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from appliance.errors import BadInput, BadPassphrase
from appliance.evf.errors import BadPassphrase as KeyFileNotOpened
from appliance.evf.errors import EvfError
from appliance.evf.keyfile import MAX_FILE_BYTES
from appliance.evf.recipients import RepresentativeKey
from appliance.reading import read_file


def load_representative(key_file: Path, passphrase: str) -> RepresentativeKey:
    """The key; BadInput for a file that cannot be used, BadPassphrase when the passphrase does not open it."""
    data = read_file(key_file, MAX_FILE_BYTES)
    try:
        return RepresentativeKey.load(data, passphrase)
    except KeyFileNotOpened as error:
        raise BadPassphrase(f"passphrase does not open {key_file}", error.hint) from error
    except EvfError as error:
        raise BadInput(f"{key_file}: {error}", "name the private file, representative.key") from error


@contextmanager
def opened_beside(key_file: Path, passphrase: str) -> Iterator[Future[RepresentativeKey]]:
    """Open the key on another core while the block runs: a quarter of a second of PBKDF2, which lets others run.

    After the block the key is there. What is wrong with it is raised rather than an error of the block, as if the key
    had been opened first.
    """
    with ThreadPoolExecutor(1) as pool:
        opening = pool.submit(load_representative, key_file, passphrase)
        try:
            yield opening
        finally:
            opening.result()
