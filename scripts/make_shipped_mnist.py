"""Make the decoded MNIST that the package ships, from the original files.

    python scripts/make_shipped_mnist.py FOLDER [FILE]

FOLDER holds the four original .gz files; TFDS's checksums are checked, and the arrays come in
TFDS's order. FILE is the repository's own if left out, and comes out the same, byte for byte, on
every machine with the same zlib.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from _arguments import make_parser

SHIPPED = Path(__file__).parent.parent / "rnn_mnist" / "data" / "mnist-3.0.1.npz"


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__)
    parser.add_argument("folder", type=Path, help="folder of the original files")
    parser.add_argument("file", nargs="?", type=Path, default=SHIPPED, help="where to write")
    given = parser.parse_args(arguments)
    # Imported here, so that help and mistyped arguments answer at once.
    from rnn_mnist import InputError
    from rnn_mnist.data import originals, tfds_builder
    from rnn_mnist.data.loading import write_archive

    builder = tfds_builder.find_builder("mnist:3.0.1")
    try:
        with (
            tempfile.TemporaryDirectory() as kept,
            originals.fetched(builder, Path(kept), given.folder) as found,
        ):
            archive = originals.parse(builder, found)
    except InputError as error:
        sys.exit(f"error: {error}")
    write_archive(given.file, archive, compresslevel=9)
    print(f"{given.file}: {given.file.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
