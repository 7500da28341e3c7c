"""Make the decoded MNIST that the package ships, from the original files.

    python scripts/make_shipped_mnist.py FOLDER

FOLDER holds the four original .gz files; TFDS's checksums are checked, and the arrays come in
TFDS's order. The file comes out the same, byte for byte, on every machine with the same zlib.
"""

import sys
import tempfile
from pathlib import Path

from rnn_mnist import origin
from rnn_mnist.archive import SHIPPED, write_archive


def main() -> None:
    files = Path(sys.argv[1])
    builder = origin.find_builder("mnist:3.0.1")
    with tempfile.TemporaryDirectory() as downloads:
        archive = origin.parse(builder, origin.fetch(builder, Path(downloads), files))
    write_archive(SHIPPED, archive, compresslevel=9)
    print(f"{SHIPPED}: {SHIPPED.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
