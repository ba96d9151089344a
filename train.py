"""python train.py FILE [key=value...]: the same as `a3gan train FILE [key=value...]`."""

import sys

from a3gan.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
