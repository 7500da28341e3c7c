"""Where files that can be made again are kept; files that are whole or absent at any moment."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import platformdirs

_PARTIAL = ".partial"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name only once it is complete.

    What was there stays until then. A process killed meanwhile leaves a hidden file ending in
    `.partial` behind, which is no output. The next that writes the same file removes it.

    Raises:
      OSError: The folder cannot be written, or the disk is full; nothing changed then.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}{_PARTIAL}")
    try:
        with partial.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise
    for left in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            left.unlink()


def cache_folder() -> Path:
    """The user's cache of this program: RNN_MNIST_CACHE, or the platform's own place for caches."""
    folder = os.environ.get("RNN_MNIST_CACHE")
    return Path(folder) if folder else Path(platformdirs.user_cache_dir("rnn_mnist", False))
