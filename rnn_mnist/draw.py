"""The command that opens a page to draw on: python -m rnn_mnist.draw [RUN]."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from rnn_mnist import cli
from rnn_mnist.cli import optional


@dataclasses.dataclass(frozen=True)
class Options:
    """Open a page in the browser on which to draw a digit and watch a network read it.

    `python -m rnn_mnist.export page` writes the same page as a file to keep.
    """

    run: Annotated[tyro.conf.Positional[Path | None], optional("RUN", "(default: strong)")] = None
    """A run's folder, a sweep's folder (its best run is used), weights that end in .safetensors,
    .pt or .pth, or a pretrained network: reference or strong."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, write the page, open the browser; returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        options = cli.parse_plain(Options, given, module="rnn_mnist.draw")
        # Imported here, so that help and mistyped flags answer at once.
        import tempfile
        import webbrowser

        from rnn_mnist.interop import to_page

        (result,) = cli.load_runs([options.run] if options.run else []).values()
        path = Path(tempfile.mkdtemp(prefix="rnn_mnist-")) / "digit.html"
        path.write_text(to_page(result), encoding="utf-8")
        opened = webbrowser.open(path.as_uri())
        said = "opened in the browser" if opened else "no browser was found; open this file in one"
        print(f"{path}: {said}")

    return cli.guarded(body)


if __name__ == "__main__":
    cli.run_and_exit(main)
