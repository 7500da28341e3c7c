"""The command that opens a page to draw on: python -m rnn_mnist.draw [RUN]."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from rnn_mnist import cli, flags


@dataclasses.dataclass(frozen=True)
class Options(flags.WeightFlags):
    """Open a page in the browser. Draw a digit there and watch a network read it.

    `rnn-mnist export page -o digit.html` writes the same page as a file to keep.
    """

    run: Path | None = flags.argument("[RUN]", default=None, nargs="?", type=Path, hint="strong")
    """A run's folder, a sweep's folder (for its best run), a file of weights, or one of the
    pretrained networks reference and strong."""


@cli.program
def main(words: Sequence[str]) -> None:
    """Parse, write the page, open the browser."""
    options = flags.parse(Options, words, command="draw")
    # Imported here, so that help and mistyped flags answer at once.
    import tempfile
    import webbrowser

    from rnn_mnist.interop import to_page

    sources = [options.run] if options.run else []
    (result,) = cli.load_runs(sources, how=options.how()).values()
    path = Path(tempfile.mkdtemp(prefix="rnn_mnist-")) / "digit.html"
    path.write_text(to_page(result), encoding="utf-8")
    opened = webbrowser.open(path.as_uri())
    said = "opened in the browser" if opened else "no browser was found; open this file in one"
    cli.print_line(f"{path}: {said}")


if __name__ == "__main__":
    cli.run_and_exit(main)
