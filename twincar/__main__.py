"""`python -m twincar` is the command `twincar`."""

from twincar.cli import main

main()
