"""`python -m contract verify FOLDER | new NAME | run MODEL`."""

from __future__ import annotations

import sys

from contract.cli import main

sys.exit(main(sys.argv[1:]))
