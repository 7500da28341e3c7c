"""The pretrained network reads what people's hands write, not only what MNIST's writers wrote."""

import collections

import hands
import numpy as np
import pytest

from rnn_mnist import load_pretrained
from rnn_mnist.inference import predict


def wrong_forms(drawings):
    """How many drawings of each form `strong` gets wrong."""
    answers = predict([load_pretrained()], hands.images_of(drawings)).argmax(1)
    pairs = zip(drawings, answers, strict=True)
    return collections.Counter(drawn.form for drawn, answer in pairs if answer != drawn.digit)


def test_every_form_by_every_hand_is_read():
    drawings = hands.fixed_drawings()
    assert len(drawings) == 108
    assert {drawn.digit for drawn in drawings} == set(range(10))
    assert wrong_forms(drawings).total() <= 1


@pytest.mark.slow
def test_forms_by_random_hands_are_read():
    drawings = hands.random_drawings(20, seed=1)
    wrong = wrong_forms(drawings)
    assert wrong.total() <= 0.02 * len(drawings)
    assert max(wrong.values(), default=0) <= 2  # Of the 20 of each form.


def test_drawings_are_the_same_every_time():
    first, second = hands.fixed_drawings()[:40], hands.fixed_drawings()[:40]
    np.testing.assert_array_equal(hands.images_of(first), hands.images_of(second))
