"""The ``edgeq`` command. It owns the terminal: library code reports, this package shows."""
