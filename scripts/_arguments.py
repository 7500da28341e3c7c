"""How every script reads its arguments, and how it says that a package is missing."""

import argparse
import importlib.util


def make_parser(description: str, *, quick: str = "") -> argparse.ArgumentParser:
    """Make a parser that refuses wrong arguments with one line and exit code 2.

    Args:
      description: The script's docstring, for `--help`.
      quick: What `--quick` does, for the help. If it is empty, there is no such flag.
    """
    parser = argparse.ArgumentParser(
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    hint = "--help lists the arguments"
    parser.error = lambda message: parser.exit(2, f"error: {message}; {hint}\n")  # type: ignore
    if quick:
        parser.add_argument("--quick", action="store_true", help=f"a short run: {quick}")
    return parser


def need(package: str, install: str) -> None:
    """End the script with one line and exit code 1 if a package is not installed."""
    if importlib.util.find_spec(package) is None:
        raise SystemExit(f"error: needs {package}, which is not installed: pip install {install}")
