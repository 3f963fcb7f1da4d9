"""Run `nanochat-tct prepare` as a script, for `ray job submit`."""

import sys

from nanochat_tct.cli import main

if __name__ == "__main__":
    sys.exit(main(["prepare", *sys.argv[1:]]))
