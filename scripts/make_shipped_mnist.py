"""Make the decoded MNIST that the package ships, from the original files.

    python scripts/make_shipped_mnist.py FOLDER [FILE]

FOLDER holds the four original .gz files; TFDS's checksums are checked, and the arrays come in
TFDS's order. FILE is the repository's own if left out, and comes out the same, byte for byte, on
every machine with the same zlib.
"""

import sys
import tempfile
from pathlib import Path

from rnn_mnist import catalogue, originals
from rnn_mnist.archive import write_archive

SHIPPED = Path(__file__).parent.parent / "rnn_mnist" / "mnist-3.0.1.npz"


def main() -> None:
    files = Path(sys.argv[1])
    builder = catalogue.find_builder("mnist:3.0.1")
    with (
        tempfile.TemporaryDirectory() as kept,
        originals.fetched(builder, Path(kept), files) as found,
    ):
        archive = originals.parse(builder, found)
    file = Path(sys.argv[2]) if len(sys.argv) > 2 else SHIPPED
    write_archive(file, archive, compresslevel=9)
    print(f"{file}: {file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
