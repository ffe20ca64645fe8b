"""The socket of every MQTT connection."""

from __future__ import annotations

import ssl


class TlsSocket(ssl.SSLSocket):
    """Closed when its handshake fails, which paho leaves to the garbage collector."""

    def do_handshake(self, block: bool = False) -> None:
        """As the base class."""
        try:
            super().do_handshake(block)
        except OSError:
            self.close()
            raise
