"""Orders: every image once an epoch, reproducible, and cut without loss."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rnn_mnist.data import batches

sizes, batch_sizes = st.integers(1, 300), st.integers(1, 50)


@given(sizes, batch_sizes, st.integers(0, 2**32 - 1), st.integers(0, 1000))
def test_an_epoch_names_every_image_once(size, batch_size, seed, epoch):
    order = batches.epoch_order(size, batch_size, seed=seed, epoch=epoch)
    assert order.dtype == np.int32
    assert order.shape == (-(-size // batch_size), batch_size)
    assert sorted(order[order >= 0]) == list(range(size))
    assert (order.ravel()[size:] == -1).all()


def test_seed_and_epoch_alone_decide_the_order():
    def order(seed, epoch):
        return batches.epoch_order(50, 7, seed=seed, epoch=epoch).tolist()

    assert order(3, 2) == order(3, 2)
    distinct = {str(order(seed, epoch)) for seed in range(4) for epoch in range(4)}
    assert len(distinct) == 16


@given(sizes, batch_sizes, st.integers(1, 200))
def test_parts_have_one_shape_and_lose_nothing(size, batch_size, most):
    order = batches.make_order(np.arange(size), batch_size)
    steps = batches.steps_per_part(len(order), most)
    assert 1 <= steps <= most
    parts = list(batches.cut_order(order, steps))
    assert {part.shape for part in parts} == {(steps, batch_size)}
    joined = np.concatenate(parts)
    np.testing.assert_array_equal(joined[: len(order)], order)
    assert (joined[len(order) :] == -1).all()
    assert len(joined) - len(order) < len(parts)  # Equal parts: hardly a step is left over.
