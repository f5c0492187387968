"""`python -m node` is `aenode`."""

from node.cli import main

main()
