"""Judge anonymizers: `python evaluate.py configs/eval/lfw.yaml [key=value ...] [--method a3gan,blur]`."""

from __future__ import annotations

import argparse
import logging
import sys

from a3gan.errors import UserError


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Command line -> config file, overrides, flags."""
    parser = argparse.ArgumentParser(prog="evaluate.py", description=__doc__)
    parser.add_argument("config", help="YAML of an evaluation, or the name of a shipped one such as eval/lfw")
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="for example data.path=data/lfw_128.zip data.max_images=200"
    )
    parser.add_argument("--method", help="short for method=...: a3gan,blur,pixelate,solid,identity")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser.parse_intermixed_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs one evaluation and prints its tables; 2 for an error of the user's."""
    options = parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    overrides = options.overrides + ([f"method={options.method}"] if options.method else [])
    from a3gan.evaluation.run import evaluate

    try:
        results = evaluate(options.config, overrides)
    except UserError as error:
        if options.debug:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(results)
    return 0


if __name__ == "__main__":
    sys.exit(main())
