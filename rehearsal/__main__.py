"""`python -m rehearsal VERB`."""

from rehearsal.cli import main

main()
