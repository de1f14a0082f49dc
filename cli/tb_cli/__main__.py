"""`python -m tb_cli` is `tb-cli`."""

from tb_cli.entry import main

main()
