"""`python -m tinyllm`."""

from tinyllm.cli import main

main()
