"""python evaluate.py FILE [key=value...]: the same as `a3gan evaluate FILE [key=value...]`."""

import sys

from a3gan.cli import main

if __name__ == "__main__":
    sys.exit(main(["evaluate", *sys.argv[1:]]))
