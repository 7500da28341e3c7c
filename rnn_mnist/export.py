"""The command that exports: python -m rnn_mnist.export torch|onnx|stablehlo|page [RUN] -o FILE."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rnn_mnist import cli, files, flags

if TYPE_CHECKING:
    from rnn_mnist.runs import Result

ENDINGS = {
    "torch": (".safetensors", ".pt", ".pth"),
    "onnx": (".onnx",),
    "stablehlo": (".zip",),
    "page": (".html",),
}
ABOUT = {
    "torch": "PyTorch's names and shapes",
    "onnx": "ONNX with opset 17; images (batch, 28, 28) in [0, 1] -> log_probabilities",
    "stablehlo": "StableHLO for cpu, cuda and tpu; rnn_mnist.load_exported runs it",
    "page": "a page to draw on; any browser shows it, even offline",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(flags.WeightFlags):
    """Write a trained network as a file for other programs.

    torch      weights that PyTorch's LSTM and Linear load (.safetensors or .pt)
    onnx       a graph with ONNX's LSTM operator, for any batch size (.onnx)
    stablehlo  prediction and training step for CPUs, CUDA and TPUs (.zip), which
               rnn_mnist.load_exported runs with JAX alone
    page       a web page on which to draw a digit and watch it being read (.html)
    """

    format: str = flags.argument("FORMAT", choices=tuple(ENDINGS))
    """The kind of file."""
    run: Path | None = flags.argument("[RUN]", default=None, nargs="?", type=Path, hint="strong")
    """A run's folder, a sweep's folder (for its best run), a file of weights, or one of the
    pretrained networks reference and strong."""
    output: Path = flags.flag("-o", default=dataclasses.MISSING, type=Path, metavar="FILE")
    """The file to write."""

    def __post_init__(self) -> None:
        """Refuse an ending that belongs to another format."""
        cli.check_ending(self.output, self.format, ENDINGS[self.format])


@cli.program
def main(words: Sequence[str]) -> None:
    """Parse, export, print."""
    options = flags.parse(Options, words, command="export")
    files.check_file(options.output)
    sources = [options.run] if options.run else []
    (result,) = cli.load_runs(sources, how=options.how()).values()
    write(options.output, options.format, result)
    size = options.output.stat().st_size
    cli.print_line(f"{options.output}: {size:,} bytes, {ABOUT[options.format]}")


def write(path: Path, format: str, result: Result) -> None:
    """Write a network in one of the formats."""
    # Imported here, so that help and mistyped flags answer at once.
    from rnn_mnist.interop import to_onnx, to_page, to_stablehlo
    from rnn_mnist.runs import save_weights

    if format == "torch":
        save_weights(path, result)
        return
    if format == "onnx":
        content = to_onnx(result).SerializeToString()
    elif format == "stablehlo":
        content = to_stablehlo(result)
    else:
        content = to_page(result).encode()
    with files.atomic_write(path) as file:
        file.write(content)


if __name__ == "__main__":
    cli.run_and_exit(main)
