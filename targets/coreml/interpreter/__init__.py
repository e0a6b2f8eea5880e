"""Runs the MIL program of a written package on any machine."""
