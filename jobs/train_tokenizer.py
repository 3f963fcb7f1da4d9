"""Run `nanochat-tct train-tokenizer` as a script, for `ray job submit`."""

import sys

from nanochat_tct.cli import main

if __name__ == "__main__":
    sys.exit(main(["train-tokenizer", *sys.argv[1:]]))
