"""`python -m harness.cli`: the command `goldens`."""

from harness.cli.app import main

main()
