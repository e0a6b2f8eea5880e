"""``python -m edgeq``: the same as ``edgeq``."""

from edgeq.cli.app import main

main()
