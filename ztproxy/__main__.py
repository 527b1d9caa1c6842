"""`python -m ztproxy`: the same command as `ztproxy`."""

from ztproxy.cli.main import main

main()
