"""The command that exports: python -m rnn_mnist.export torch|onnx|stablehlo|page [RUN] -o FILE."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from rnn_mnist import cli, files
from rnn_mnist.cli import optional
from rnn_mnist.config import InputError

ENDINGS = {
    "torch": (".safetensors", ".pt", ".pth"),
    "onnx": (".onnx",),
    "stablehlo": (".zip",),
    "page": (".html",),
}
SAYS = {
    "torch": "PyTorch's names and shapes",
    "onnx": "ONNX with opset 17; images (batch, 28, 28) in [0, 1] -> log_probabilities",
    "stablehlo": "StableHLO for cpu, cuda and tpu; rnn_mnist.load_exported runs it",
    "page": "a page to draw on; open it in a browser, it needs nothing else",
}


@dataclasses.dataclass(frozen=True)
class Options:
    """Write a trained network as a file for elsewhere.

    torch: a state dict that PyTorch's LSTM and Linear load, as .safetensors or .pt. onnx: a graph
    with the standard LSTM operator, for any batch. stablehlo: prediction and training step for any
    batch on CPUs, CUDA and TPUs, which `rnn_mnist.load_exported` runs with JAX alone. page: one
    HTML file on which to draw a digit and watch it being read, in any browser and offline.
    """

    format: tyro.conf.Positional[Literal["torch", "onnx", "stablehlo", "page"]]
    """What to write."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE", aliases=["-o"])]
    """The file to write."""
    run: Annotated[tyro.conf.Positional[Path | None], optional("RUN", "(default: strong)")] = None
    """A run's folder, a sweep's folder (its best run is used), weights that end in .safetensors,
    .pt or .pth, or a pretrained network: reference or strong."""

    def __post_init__(self) -> None:
        """Refuse an ending that says something else."""
        if self.output.suffix not in ENDINGS[self.format]:
            raise InputError(
                f"--output: {self.format} is written as a file that ends in "
                f"{' or '.join(ENDINGS[self.format])}, not {str(self.output)!r}"
            )


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse, export, print; returns the exit code."""

    def body() -> None:
        given = sys.argv[1:] if arguments is None else arguments
        options = cli.parse_plain(Options, given, module="rnn_mnist.export")
        files.check_file(options.output)
        # Imported here, so that help and mistyped flags answer at once.
        from rnn_mnist.interop import to_onnx, to_page, to_stablehlo
        from rnn_mnist.runs import save_weights

        (result,) = cli.load_runs([options.run] if options.run else []).values()
        if options.format == "torch":
            save_weights(options.output, result)
        else:
            make: dict[str, Callable[[], bytes]] = {
                "onnx": lambda: to_onnx(result).SerializeToString(),
                "stablehlo": lambda: to_stablehlo(result),
                "page": lambda: to_page(result).encode(),
            }
            content = make[options.format]()
            with files.atomic_write(options.output) as file:
                file.write(content)
        size = options.output.stat().st_size
        print(f"{options.output}: {size:,} bytes, {SAYS[options.format]}")

    return cli.guarded(body)


if __name__ == "__main__":
    cli.run_and_exit(main)
