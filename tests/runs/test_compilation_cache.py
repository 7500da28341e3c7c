"""Compiled programs that are kept: used only as they were written."""

import importlib
import os

import numpy as np

# The folder's function of the same name hides the module.
compiled = importlib.import_module("rnn_mnist.runs.compilation_cache")


def programs(folder):
    return {path.name for path in folder.glob("*-cache")}


def test_a_flipped_bit_anywhere_removes_a_program(tmp_path):
    rng = np.random.default_rng(0)
    contents = {f"jit_{n}-cache": rng.bytes(40 + n) for n in range(3)}

    def write():
        for name, content in contents.items():
            (tmp_path / name).write_bytes(content)
        compiled.add_sums(tmp_path)

    write()
    compiled.remove_damaged(tmp_path)
    assert programs(tmp_path) == set(contents)
    for place in range(40):
        damaged = bytearray(contents["jit_1-cache"])
        damaged[place] ^= 1 << rng.integers(8)
        (tmp_path / "jit_1-cache").write_bytes(damaged)
        compiled.remove_damaged(tmp_path)
        assert programs(tmp_path) == {"jit_0-cache", "jit_2-cache"}
        write()  # JAX compiles it again.
    (tmp_path / "jit_0-cache.sha256").write_bytes(b"\xff")
    (tmp_path / "jit_killed-cache").write_bytes(b"half")
    compiled.remove_damaged(tmp_path)
    assert programs(tmp_path) == {"jit_1-cache", "jit_2-cache"}


def test_the_oldest_programs_go_where_there_are_too_many(tmp_path, monkeypatch):
    monkeypatch.setattr(compiled, "MOST_BYTES", 250)
    for age in range(5):
        path = tmp_path / f"jit_{age}-cache"
        path.write_bytes(bytes(100))
        os.utime(path, (1e9 - age, 1e9 - age))
    compiled.add_sums(tmp_path)
    assert programs(tmp_path) == {"jit_0-cache", "jit_1-cache"}
    assert len(list(tmp_path.iterdir())) == 4
    compiled.remove_damaged(tmp_path)
    (tmp_path / "jit_0-cache").unlink()
    compiled.add_sums(tmp_path)
    assert len(list(tmp_path.iterdir())) == 2
