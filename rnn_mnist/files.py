"""Files that are whole or absent, whenever the process is stopped."""

from __future__ import annotations

import contextlib
import glob
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

_PARTIAL = ".partial"


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that takes its name only once it is complete.

    What was there stays until then. A process killed meanwhile leaves a hidden file ending in
    `.partial` behind, which is no output; `remove_partials` takes it away.

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


def remove_partials(path: Path) -> None:
    """Remove what killed processes left of a file they were writing."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        partial.unlink(missing_ok=True)
