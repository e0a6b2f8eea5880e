"""Writes ``.mlpackage`` folders: passes, precision, interface, metadata."""
