"""The institution's own tool: list, pull, verify, open and report on recordings that only its keys open."""
