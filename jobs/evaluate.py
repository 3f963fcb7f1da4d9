"""Run `nanochat-tct evaluate` as a script, for `ray job submit`."""

import sys

from nanochat_tct.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
