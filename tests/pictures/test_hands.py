"""The pretrained network reads what people's hands write, not only what MNIST's writers wrote."""

import pytest
from hands import fixed_drawings, random_drawings, wrong_forms

from rnn_mnist import load_pretrained


def test_every_form_by_every_hand_is_read():
    drawings = fixed_drawings()
    assert len(drawings) == 108
    assert {drawn.digit for drawn in drawings} == set(range(10))
    assert wrong_forms(load_pretrained(), drawings).total() <= 1


@pytest.mark.slow
def test_forms_by_random_hands_are_read():
    drawings = random_drawings(20, seed=1)
    wrong = wrong_forms(load_pretrained(), drawings)
    assert wrong.total() <= 0.02 * len(drawings)
    assert max(wrong.values(), default=0) <= 2  # Of the 20 of each form.
