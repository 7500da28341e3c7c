"""Faults on real processes, each a few times; `scripts/try_faults.py` tries them often."""

import os
import shutil
import sys

import faults
import pytest

pytestmark = pytest.mark.slow
TIMES = {faults.killed: 3, faults.asked_to_stop: 2, faults.odd_surroundings: 5}
TIMES |= {faults.write_failed: 4, faults.killed_while_writing: 2, faults.one_of_two_killed: 4}
TIMES |= {faults.cache_damaged: 2, faults.checkpoint_damaged: 2}


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        # As users have it: the tests' own cache of compiled programs is not checked.
        patch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
        yield faults.make_scene(tmp_path_factory.mktemp("faults"))


@pytest.mark.parametrize("name", faults.FAULTS)
def test_nothing_is_lost(scene, monkeypatch, name):
    fault, _ = faults.FAULTS[name]
    if fault in (faults.disk_full, faults.read_only) and (
        os.geteuid() or not shutil.which("mount")
    ):
        pytest.skip("only root may mount a disk")
    preloads = faults.write_failed, faults.killed_while_writing, faults.without_locks
    if fault in preloads and not (sys.platform == "linux" and shutil.which("cc")):
        pytest.skip("needs a C compiler, and Linux")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("RNN_MNIST_CACHE", str(scene.folder / "cache"))
    outcome = fault(scene, TIMES.get(fault, 1))
    assert outcome.lost == ()
    if fault in (faults.disk_full, faults.read_only):
        assert outcome.refused > 0
