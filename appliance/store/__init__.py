"""The node's store: SQLite rows and append-only files, made to lose nothing that was acknowledged."""
