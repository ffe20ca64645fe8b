"""What can be wrong with EVF1 files, keys and signed documents; stands alone, next to `appliance.errors`."""

from __future__ import annotations


class EvfError(ValueError):
    """Something the format refuses by name; `hint` says what a person can do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class BadSignature(EvfError):
    """A signed document is malformed, altered, or signed for another purpose or by another key."""


class Outdated(EvfError):
    """A correctly signed document is older than one already seen."""


class BadPassphrase(EvfError):
    """The passphrase does not open the key file, or the file was altered."""


class BadKeyFile(EvfError):
    """A key file is malformed, of another kind, or protected too weakly."""


class BadWrap(EvfError):
    """A wrapped key does not open with this key in this context."""


class NotARecipient(BadWrap):
    """The recording was not wrapped for this representative."""


class CorruptSegment(EvfError):
    """Bytes of a segment are not what the format allows or do not authenticate."""


class LimitExceeded(EvfError):
    """A length, count or number is over the format's limit."""


class WriterClosed(EvfError):
    """The segment writer has ended, failed or been erased and takes no more records."""
