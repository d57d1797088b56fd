"""Entry point of `python -m twincar`."""

from twincar.cli import main

main()
