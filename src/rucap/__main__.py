"""`python -m rucap`: the command line."""

from rucap.cli import main

main()
