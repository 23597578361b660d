"""`python -m trimtab.cli` does what the `trimtab` command does."""

from trimtab.cli import main

main()
