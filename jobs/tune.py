"""Run `nanochat-tct tune` as a script, for `ray job submit`."""

import sys

from nanochat_tct.cli import main

if __name__ == "__main__":
    sys.exit(main(["tune", *sys.argv[1:]]))
