"""Training and testing against PyTorch's golden file, PyTorch live, and sums made by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import GOLDEN, from_torch
from jax.sharding import PartitionSpec

from rnn_mnist import (
    RowLSTM,
    State,
    apply,
    batches,
    evaluate,
    init,
    learned,
    load,
    make_optimizer,
    nll,
    train_epoch,
    train_step,
)
from rnn_mnist.devices import AXIS, make_mesh
from rnn_mnist.optimizers import make_schedule

MODEL = RowLSTM(hidden_size=8)


def toy(size=57, seed=0):
    """Random images with labels that can be learned from them."""
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (size, 28, 28)).astype(np.uint8)
    return images, (images[:, 0, 0] % 10).astype(np.int32)


def start(optimizer, seed=0):
    return init(MODEL, optimizer, key=jax.random.key(seed))


def assert_same(a, b, atol=0.0):
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


def test_600_steps_equal_pytorchs_golden_file():
    golden = np.load(GOLDEN)
    weights = {name: {} for name in ("init", "final")}
    for key in golden.files:
        when, _, name = key.partition(".")
        if name:
            weights[when][name] = golden[key]
    split = load("mnist", "train")
    order = batches.epoch_order(60000, 100, seed=int(golden["seed"]), epoch=1)
    model, optimizer = RowLSTM(20), make_optimizer("sgd", 0.1)
    params = jax.tree.map(jnp.asarray, from_torch(weights["init"]))

    images = split.images[order[0]].astype(np.float32) / 255
    log_probs, inner = model.apply({"params": params}, images, capture_intermediates=True)
    logits = inner["intermediates"]["hidden2digits"]["__call__"][0]
    np.testing.assert_allclose(logits, golden["first_logits"], rtol=0, atol=1e-6)
    ours = apply(params, split.images[order[0]], model=model)
    np.testing.assert_allclose(log_probs, ours, rtol=0, atol=1e-6)

    state = State(params, optimizer.init(params), jnp.int32(0))
    state, metrics = train_epoch(
        state, split.images, split.labels, order, model=model, optimizer=optimizer
    )
    losses = metrics.loss / metrics.examples
    assert losses.shape == (600,)
    np.testing.assert_allclose(losses, golden["losses"], rtol=0, atol=1e-4)
    assert_same(state.params, from_torch(weights["final"]), atol=1e-4)
    assert int(state.step) == 600


@pytest.mark.parametrize(
    ("optimizer", "settings", "layers", "bidirectional"),
    [
        ("sgd", {}, 1, False),
        ("sgd", {}, 2, True),
        ("sgd", {"momentum": 0.9, "weight_decay": 0.01}, 1, False),
        ("sgd", {"gradient_clip": 0.05}, 1, False),
        ("adam", {"weight_decay": 0.01}, 1, False),
        ("adamw", {"weight_decay": 0.1, "gradient_clip": 0.5}, 2, True),
    ],
)
def test_epochs_with_a_remainder_equal_pytorchs(optimizer, settings, layers, bidirectional):
    torch = pytest.importorskip("torch")
    torch.manual_seed(3)
    rate = 0.1 if optimizer == "sgd" else 0.01
    images, labels = toy(57)
    lstm = torch.nn.LSTM(28, 12, layers, batch_first=True, bidirectional=bidirectional)
    linear = torch.nn.Linear(12 * (1 + bidirectional), 10)
    both = torch.nn.ModuleDict({"lstm": lstm, "hidden2digits": linear})
    params = from_torch({k: v.numpy().copy() for k, v in both.state_dict().items()})
    model = RowLSTM(12, layers, bidirectional)
    ours = make_optimizer(optimizer, rate, **settings)
    state = State(jax.tree.map(jnp.asarray, params), ours.init(params), jnp.int32(0))

    clip = settings.pop("gradient_clip", None)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    theirs = kinds[optimizer](both.parameters(), lr=rate, **settings)
    losses = []
    for epoch in range(1, 5):
        order = batches.epoch_order(57, 10, seed=5, epoch=epoch)
        state, metrics = train_epoch(state, images, labels, order, model=model, optimizer=ours)
        for row, loss in zip(order, metrics.loss / metrics.examples, strict=True):
            index = row[row >= 0]
            _, (hidden, _) = lstm(torch.from_numpy(images[index]).float() / 255)
            last = torch.cat([hidden[-2], hidden[-1]], 1) if bidirectional else hidden[-1]
            wanted = torch.nn.functional.nll_loss(
                torch.log_softmax(linear(last), 1), torch.from_numpy(labels[index]).long()
            )
            theirs.zero_grad()
            wanted.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(both.parameters(), clip)
            theirs.step()
            losses.append((float(loss), wanted.item()))
    assert len(losses) == 24
    np.testing.assert_allclose(*np.array(losses).T, rtol=0, atol=1e-4)
    assert_same(state.params, from_torch(both.state_dict()), atol=1e-4)
    settings["gradient_clip"] = clip or 0.0


def test_padding_and_masked_steps_change_nothing():
    images, labels = toy()
    optimizer = make_optimizer("adam", 0.01, weight_decay=0.1)
    order = batches.epoch_order(57, 10, seed=0, epoch=1)
    assert order.shape == (6, 10)
    kwargs = {"model": MODEL, "optimizer": optimizer}

    whole, metrics = train_epoch(start(optimizer), images, labels, order, **kwargs)
    assert metrics.examples.tolist() == [10, 10, 10, 10, 10, 7]

    by_hand = start(optimizer)
    for row in order:
        index = row[row >= 0]  # Never padded, so the last batch has another shape.
        by_hand, _ = train_step(by_hand, images[index], labels[index], **kwargs)
    assert_same(whole, by_hand, atol=1e-6)

    cut = start(optimizer)
    for part in batches.in_parts(order, 4):  # The second part has two steps of nothing.
        cut, _ = train_epoch(cut, images, labels, part, **kwargs)
    jax.tree.map(np.testing.assert_array_equal, whole, cut)
    assert int(cut.step) == 6


def test_a_batch_spread_over_vmap_gives_the_same_step():
    images, labels = toy(6)
    optimizer = make_optimizer("sgd", 0.1)
    model = RowLSTM(8, dropout=0.2)
    settings = {"model": model, "optimizer": optimizer, "key": jax.random.key(1)}
    state = init(model, optimizer, key=jax.random.key(0))
    whole = train_step(state, images, labels, **settings)
    step = functools.partial(train_step, **settings, axis_name="halves")
    split = jax.tree.map(lambda x: x.reshape(2, 3, *x.shape[1:]), (images, labels))
    halves = jax.vmap(step, (None, 0, 0), axis_name="halves")(state, *split)
    for half in (0, 1):
        assert_same(jax.tree.map(lambda x: x[half], halves), whole, atol=1e-5)  # noqa: B023


def test_evaluation_counts_every_image_once():
    images, labels = toy(57)
    params = start(optax.sgd(0.1)).params
    order = batches.in_rows(np.arange(57), 10)
    metrics = evaluate(params, images, labels, order, model=MODEL)
    log_probs = np.asarray(apply(params, images, model=MODEL), np.float64)
    assert int(metrics.examples) == 57
    assert int(metrics.correct) == (log_probs.argmax(1) == labels).sum()
    np.testing.assert_allclose(metrics.loss, -log_probs[np.arange(57), labels].sum(), rtol=1e-6)


def test_epochs_and_evaluation_run_in_a_users_shard_map():
    images, labels = toy(6)
    optimizer = make_optimizer("sgd", 0.1)
    order = batches.in_rows(np.arange(6), 3)

    def both(state, images, labels):
        state, _ = train_epoch(state, images, labels, order, model=MODEL, optimizer=optimizer)
        return state, evaluate(state.params, images, labels, order, model=MODEL)

    mesh = make_mesh(jax.devices()[:1])
    whole, split = PartitionSpec(), PartitionSpec(AXIS)

    def stacked(*arrays):
        return jax.tree.map(lambda x: x[None], both(*arrays))

    run = jax.shard_map(stacked, mesh=mesh, in_specs=(whole, split, split), out_specs=split)
    ours, wanted = run(start(optimizer), images, labels), both(start(optimizer), images, labels)
    assert_same(jax.tree.map(lambda x: x[0], ours), wanted, atol=1e-6)


def test_nll_takes_each_labels_log_probability():
    log_probs = jnp.log(jnp.array([[0.25, 0.75], [0.9, 0.1]]))
    np.testing.assert_allclose(
        nll(log_probs, jnp.array([1, 1])), [-np.log(0.75), -np.log(0.1)], rtol=1e-6
    )


def test_uint8_and_scaled_floats_are_the_same_images():
    images, _ = toy(5)
    params = start(optax.sgd(0.1)).params
    scaled = (images / np.float32(255)).astype(np.float32)
    np.testing.assert_allclose(
        apply(params, images, model=MODEL), apply(params, scaled, model=MODEL), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize("total", [4, 5, 10, 1000])
def test_schedules_start_peak_and_end_where_they_say(total):
    cosine = make_schedule("cosine", 0.5, total)
    one_cycle = make_schedule("one_cycle", 0.5, total)
    assert make_schedule("constant", 0.5, total) == 0.5
    np.testing.assert_allclose([cosine(0), cosine(total)], [0.5, 0], atol=1e-6)
    rates = np.asarray(jax.vmap(one_cycle)(np.arange(total + 1)))
    np.testing.assert_allclose(rates.max(), 0.5, rtol=0.01)
    assert rates[-1] < 1e-5
    if total == 1000:
        np.testing.assert_allclose(rates[0], 0.5 / 25, rtol=1e-5)
        assert rates.argmax() == 300


def test_smoothed_labels_give_another_gradient_and_the_same_metrics():
    images, labels = toy(20)
    optimizer = make_optimizer("sgd", 1.0)
    state = start(optimizer)
    log_probs = apply(state.params, images, model=MODEL)

    def step(label_smoothing):
        settings = {"model": MODEL, "optimizer": optimizer, "label_smoothing": label_smoothing}
        return train_step(state, images, labels, **settings)

    (stepped, metrics), (plain, plain_metrics) = step(0.3), step(0.0)
    assert_same(metrics[:3], plain_metrics[:3])
    # The gradient by the last biases is the predicted less the wanted share of each class.
    shares = np.full((20, 10), 0.03)
    shares[np.arange(20), labels] += 0.7
    gradient = (np.exp(log_probs) - shares).mean(0)
    before = state.params["hidden2digits"]["bias"]
    np.testing.assert_allclose(
        before - stepped.params["hidden2digits"]["bias"], gradient, rtol=0, atol=1e-6
    )
    assert abs(plain.params["hidden2digits"]["bias"] - before + gradient).max() > 0.01


def test_the_running_average_is_that_of_every_steps_parameters():
    images, labels = toy(20)
    optimizer = make_optimizer("sgd", 0.5, ema=0.8)
    state = start(optimizer)
    average = jax.tree.map(np.float64, state.params)
    for step in range(1, 80):
        state, _ = train_step(state, images, labels, model=MODEL, optimizer=optimizer)
        decay = min(0.8, (1 + step) / (10 + step))
        average = jax.tree.map(
            lambda a, p, decay=decay: decay * a + (1 - decay) * np.float64(p), average, state.params
        )
    assert_same(learned(state), average, atol=1e-5)
    plain = start(make_optimizer("sgd", 0.5))
    assert learned(plain) is plain.params


def test_dropout_leaves_units_out_of_training_alone():
    model = RowLSTM(hidden_size=400, num_layers=2, dropout=0.25)
    images = jax.random.uniform(jax.random.key(0), (6, 28, 28))
    params = model.init(jax.random.key(1), images)["params"]
    keys = jax.random.split(jax.random.key(2), 6)
    # With the last layer's weights all one, each class's logit is the sum of what is handed to it.
    params["hidden2digits"] = {"kernel": jnp.eye(400, 10), "bias": jnp.zeros(10)}

    def last(keys):
        _, inner = model.apply({"params": params}, images, keys=keys, capture_intermediates=True)
        return inner["intermediates"]["hidden2digits"]["__call__"][0]

    def share(keys):
        units = RowLSTM(400, 1, dropout=0.25, num_classes=400)
        one = {"lstm_l0": params["lstm_l0"]}
        one["hidden2digits"] = {"kernel": jnp.eye(400), "bias": jnp.zeros(400)}
        _, inner = units.apply({"params": one}, images, keys=keys, capture_intermediates=True)
        return np.asarray(inner["intermediates"]["hidden2digits"]["__call__"][0])

    dropped, whole = share(keys), share(None)
    kept = dropped != 0
    assert 0.7 < kept.mean() < 0.8
    np.testing.assert_allclose(dropped[kept], whole[kept] / 0.75, rtol=1e-5)
    assert (kept[0] != kept[1]).any()
    np.testing.assert_array_equal(share(keys)[2:], dropped[2:])
    assert abs(last(keys) - last(None)).max() > 0.001
    np.testing.assert_allclose(
        apply(params, images, model=model),
        apply(params, images, model=RowLSTM(400, 2)),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="need a key"):
        train_step(
            start(make_optimizer()),
            *toy(6),
            model=RowLSTM(8, dropout=0.1),
            optimizer=make_optimizer(),
        )


def test_ten_epochs_compile_each_function_once():
    images, labels = toy()
    optimizer = make_optimizer("sgd", 0.1)
    state = start(optimizer)
    before = train_epoch._cache_size()
    for epoch in range(10):
        order = batches.epoch_order(57, 10, seed=0, epoch=epoch)
        state, _ = train_epoch(
            state, images, labels, order, model=RowLSTM(hidden_size=8), optimizer=optimizer
        )
    assert train_epoch._cache_size() == before + 1
    assert make_optimizer("sgd", 0.1) is optimizer
