"""How the eyes' network is made: heads, pictures of them, training, export. Never runs on a desk (README.md)."""
