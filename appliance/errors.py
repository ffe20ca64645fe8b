"""The error tree and its stable exit codes; every named error is one sentence with a hint.

`appliance.evf` stands alone and has its own `EvfError`; the command line prints both alike.
"""

from __future__ import annotations


class ApplianceError(Exception):
    """Something the appliance knows by name; `hint` says what a person can do."""

    exit_code = 1

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadConfig(ApplianceError, ValueError):
    """A settings file is missing, unreadable or holds an unknown or wrong key."""

    exit_code = 3


class BadInput(ApplianceError, ValueError):
    """A file or value given on the command line cannot be used."""

    exit_code = 4


class BadPassphrase(ApplianceError, ValueError):
    """The passphrase does not open the key file."""

    exit_code = 5


class NotTrusted(ApplianceError, ValueError):
    """A signature, certificate or key is not the one that was pinned."""

    exit_code = 6


class EvidenceBroken(ApplianceError, ValueError):
    """A recording is altered, incomplete or not what its manifest says."""

    exit_code = 7


class ModelMissing(ApplianceError, LookupError):
    """A model file is absent or its SHA-256 is not the pinned one."""

    exit_code = 8


class CameraUnavailable(ApplianceError, OSError):
    """The camera or clip cannot be opened or has stopped delivering frames."""

    exit_code = 9


class CameraStuck(CameraUnavailable):
    """The camera's driver does not let go; only the end of the process frees it."""


class MicrophoneUnavailable(ApplianceError, OSError):
    """The microphone cannot be opened or has stopped delivering sound; the picture is looked at all the same."""


class StoreFailed(ApplianceError, OSError):
    """The store cannot write, or its files and database do not belong together."""

    exit_code = 10


class NoSpace(StoreFailed):
    """The disk has too little room for what was asked."""

    exit_code = 11


class ClockNotSynced(ApplianceError, RuntimeError):
    """The node's clock does not agree with the room controller's."""

    exit_code = 12


class RoomUnreachable(ApplianceError, ConnectionError):
    """The room's broker or controller refused us or does not answer."""

    exit_code = 13


class StorageUnreachable(ApplianceError, ConnectionError):
    """The institution's storage refused us or does not answer."""

    exit_code = 14


class StorageNotAllowed(ApplianceError, PermissionError):
    """The storage's endpoint or region is not on the policy's EU list."""

    exit_code = 15


class PortInUse(ApplianceError, OSError):
    """Another program already listens on the port."""

    exit_code = 16


class Refused(ApplianceError, PermissionError):
    """A rule of the policy or the desk's state does not allow this now."""

    exit_code = 17


class ModelsDiffer(ApplianceError, ArithmeticError):
    """The models give other numbers on this processor than those that they were measured with."""

    exit_code = 19
