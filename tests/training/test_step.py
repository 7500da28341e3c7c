"""Training and testing against PyTorch's golden file, PyTorch live, and sums made by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import GOLDEN, from_torch, numpy_row_lstm
from jax.extend.random import define_prng_impl, threefry_prng_impl
from jax.sharding import PartitionSpec

from rnn_mnist import (
    RowLSTM,
    State,
    apply,
    eval_epoch,
    eval_params,
    init,
    load,
    make_optimizer,
    nll,
    train_epoch,
    train_step,
)
from rnn_mnist.data import batches, pack, take_images, unpack
from rnn_mnist.parallel.mesh import AXIS, make_mesh, psum
from rnn_mnist.training.augment import Distortion
from rnn_mnist.training.learner import init_key, step_key
from rnn_mnist.training.optimizers import make_schedule

MODEL, OPTIMIZER = RowLSTM(hidden_size=8), make_optimizer("sgd", 0.1)


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


def rate_of(schedule, rate, step, total):
    """The learning rate of a step in float64, by the schedule's definition."""
    if schedule == "constant":
        return rate
    first, low, rise = rate / 25, rate / 25 / 1e4, int(0.3 * total)
    if schedule == "cosine":
        return rate * (1 + np.cos(np.pi * step / total)) / 2
    if step < rise:
        return first + (rate - first) * (1 - np.cos(np.pi * step / rise)) / 2
    return low + (rate - low) * (1 + np.cos(np.pi * (step - rise) / (total - rise))) / 2


def numpy_optimizer(kind, params, gradients, settings, dtype):
    """PyTorch's optimizers and clipping, in its order: the last parameters and their average."""
    p, average = dtype(params), dtype(params)
    m, v = np.zeros_like(p), np.zeros_like(p)
    ours = {"momentum": 0, "weight_decay": 0, "gradient_clip": 0, "ema": 0, **settings}
    for t, g in enumerate(dtype(gradients), 1):
        lr = rate_of(ours["schedule"], ours["learning_rate"], t - 1, len(gradients))
        if ours["gradient_clip"]:
            g = g * dtype(min(1, ours["gradient_clip"] / (np.sqrt((g * g).sum()) + 1e-6)))
        if kind == "adamw":
            p = p * dtype(1 - lr * ours["weight_decay"])
        else:
            g = g + dtype(ours["weight_decay"]) * p
        if kind == "sgd":
            m = dtype(ours["momentum"]) * m + g
            p = p - dtype(lr) * m
        else:
            m, v = m + dtype(0.1) * (g - m), dtype(0.999) * v + dtype(0.001) * g * g
            root = np.sqrt(v) / dtype(np.sqrt(1 - 0.999**t)) + dtype(1e-8)
            p = p - dtype(lr / (1 - 0.9**t)) * (m / root)
        average = average + dtype(1 - min(ours["ema"], (1 + t) / (10 + t))) * (p - average)
    return p, average


KINDS = [
    (kind, {"momentum": 0.9} if momentum else {}, schedule)
    for kind, momentum in (("sgd", False), ("sgd", True), ("adam", False), ("adamw", False))
    for schedule in ("constant", "cosine", "one_cycle")
]


def error(found, wanted):
    """The root of the mean squared difference of two trees."""
    leaves = zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True)
    return np.sqrt(np.mean(np.concatenate([np.ravel(np.float64(a) - b) ** 2 for a, b in leaves])))


@pytest.mark.parametrize(("kind", "settings"), [case[:2] for case in KINDS[::3]])
@pytest.mark.parametrize(
    ("schedule", "more"),
    [("constant", {}), ("one_cycle", {"weight_decay": 0.01, "gradient_clip": 0.1, "ema": 0.999})],
)
def test_optimizers_are_as_exact_as_float32_can_be(kind, settings, schedule, more):
    rng = np.random.default_rng(0)
    start = np.float32(0.1 * rng.normal(size=200))
    gradients = np.float32(0.01 * rng.normal(size=(300, 200)))
    rate = 0.3 if kind == "sgd" else 0.01
    settings = {"schedule": schedule, "learning_rate": rate, **settings, **more}
    optimizer = make_optimizer(kind, total_steps=300, **settings)

    @jax.jit
    def run(params, gradients):
        def step(carry, gradient):
            params, state = carry
            updates, state = optimizer.update(gradient, state, params)
            return (optax.apply_updates(params, updates), state), None

        (params, state), _ = jax.lax.scan(step, (params, optimizer.init(params)), gradients)
        return params, eval_params(State(params, state, jnp.int32(300)))

    found = run(start, gradients)
    exact = numpy_optimizer(kind, start, gradients, settings, np.float64)
    float32 = numpy_optimizer(kind, start, gradients, settings, np.float32)
    assert error(found[0], exact[0]) < 3 * error(float32[0], exact[0])
    if more:
        assert error(found[1], exact[1]) < 3 * error(float32[1], exact[1])


@pytest.mark.parametrize("step", [1, 2, 10, 100, 1000, 100_000, 10_000_000])
def test_adams_bias_correction_is_exact_at_any_step(step):
    optimizer, params = make_optimizer("adam", 1.0), jnp.zeros(2)
    state = optax.tree_utils.tree_set(optimizer.init(params), count=jnp.int32(step - 1))
    update, _ = optimizer.update(jnp.float32([0.5, -3.0]), state, params)
    wanted = 0.1 / -np.expm1(step * np.log(0.9)) / np.sqrt(0.001 / -np.expm1(step * np.log(0.999)))
    np.testing.assert_allclose(update, [-wanted, wanted], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "settings", "schedule"), KINDS)
def test_trajectories_are_as_exact_as_pytorchs(kind, settings, schedule):
    torch = pytest.importorskip("torch")
    images, labels = toy(400)
    order = np.concatenate([batches.epoch_order(400, 20, seed=5, epoch=e) for e in range(1, 6)])
    rate, more = 0.1 if kind == "sgd" else 0.001, {"weight_decay": 0.01}
    torch.manual_seed(3)
    lstm, linear = torch.nn.LSTM(28, 37, batch_first=True), torch.nn.Linear(37, 10)
    both = torch.nn.ModuleDict({"lstm": lstm, "hidden2digits": linear})
    weights = {name: value.clone() for name, value in both.state_dict().items()}
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}

    def pytorchs(dtype, clip):
        """Its losses, and at the end its weights and their average."""
        both.load_state_dict(weights)
        both.to(dtype)
        theirs = kinds[kind](both.parameters(), lr=rate, **settings, **more)
        averages, losses = [value.detach().clone() for value in both.parameters()], []
        for step, index in enumerate(order):
            theirs.param_groups[0]["lr"] = rate_of(schedule, rate, step, len(order))
            _, (hidden, _) = lstm(torch.from_numpy(images[index]).to(dtype) / 255)
            log_probs = torch.log_softmax(linear(hidden[-1]), 1)
            loss = torch.nn.functional.nll_loss(log_probs, torch.from_numpy(labels[index]).long())
            theirs.zero_grad()
            loss.backward()
            if clip:
                torch.nn.utils.clip_grad_norm_(both.parameters(), clip)
            theirs.step()
            losses.append(loss.item())
            for average, value in zip(averages, both.parameters(), strict=True):
                average.lerp_(value.detach(), max(1 - 0.99, 9 / (11 + step)))
        names = [name for name, _ in both.named_parameters()]
        return losses, from_torch(dict(zip(names, averages, strict=True)))

    for clip in (0.0, 0.05):
        exact, float32 = pytorchs(torch.float64, clip), pytorchs(torch.float32, clip)
        ours = make_optimizer(
            kind,
            rate,
            schedule=schedule,
            total_steps=len(order),
            gradient_clip=clip,
            ema=0.99,
            **settings,
            **more,
        )
        params = jax.tree.map(jnp.asarray, from_torch(weights))
        state = State(params, ours.init(params), jnp.int32(0))
        state, metrics = train_epoch(
            state, images, labels, order, model=RowLSTM(37), optimizer=ours
        )
        found = list(metrics.loss / metrics.examples), eval_params(state)
        for our, theirs, wanted in zip(found, float32, exact, strict=True):
            assert error(our, wanted) < 3 * error(theirs, wanted)


def test_padding_and_masked_steps_change_nothing():
    images, labels = toy()
    optimizer = make_optimizer("adam", 0.01, weight_decay=0.1)
    order = batches.epoch_order(57, 10, seed=0, epoch=1)
    assert order.shape == (6, 10)
    kwargs = {"model": MODEL, "optimizer": optimizer}

    by_hand = start(optimizer)
    for row in order:
        index = row[row >= 0]  # Never padded, so the last batch has another shape.
        by_hand, _ = train_step(by_hand, images[index], labels[index], **kwargs)

    cut, examples = start(optimizer), []
    for part in batches.cut_order(order, 4):  # The second part has two steps of nothing.
        cut, metrics = train_epoch(cut, images, labels, part, **kwargs)
        examples += metrics.examples.tolist()
    assert examples == [10, 10, 10, 10, 10, 7, 0, 0]
    assert_same(cut, by_hand, atol=1e-6)
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
    halves = jax.jit(jax.vmap(step, (None, 0, 0), axis_name="halves"))(state, *split)
    for half in (0, 1):
        assert_same(jax.tree.map(lambda x: x[half], halves), whole, atol=1e-5)  # noqa: B023


def test_evaluation_counts_every_image_once():
    images, labels = toy(57)
    params = start(optax.sgd(0.1)).params
    order = batches.make_order(np.arange(57), 10)
    metrics = eval_epoch(params, images, labels, order, model=MODEL)
    log_probs = np.asarray(apply(params, images, model=MODEL), np.float64)
    assert int(metrics.examples) == 57
    assert int(metrics.correct) == (log_probs.argmax(1) == labels).sum()
    np.testing.assert_allclose(metrics.loss, -log_probs[np.arange(57), labels].sum(), rtol=1e-6)


def test_packed_images_give_the_same_bits():
    images, labels = toy(57)
    np.testing.assert_array_equal(unpack(pack(images)), images)
    taken = jax.jit(take_images)(pack(images), jnp.array([5, 0, 56]))
    np.testing.assert_array_equal(taken, images[[5, 0, 56]])
    order = batches.make_order(np.arange(57), 9)
    found = []
    for given in (images, pack(images)):
        state, metrics = train_epoch(
            start(OPTIMIZER), given, labels, order, model=MODEL, optimizer=OPTIMIZER
        )
        found.append((state, metrics, eval_epoch(state.params, given, labels, order, model=MODEL)))
    assert_same(*found)


def test_epochs_and_evaluation_run_in_a_users_shard_map():
    images, labels = toy(6)
    optimizer = make_optimizer("sgd", 0.1)
    order = batches.make_order(np.arange(6), 3)

    def both(state, images, labels):
        state, _ = train_epoch(state, images, labels, order, model=MODEL, optimizer=optimizer)
        return state, eval_epoch(state.params, images, labels, order, model=MODEL)

    mesh = make_mesh(jax.devices()[:1])
    whole, split = PartitionSpec(), PartitionSpec(AXIS)

    def stacked(*arrays):
        return jax.tree.map(lambda x: x[None], both(*arrays))

    run = jax.shard_map(stacked, mesh=mesh, in_specs=(whole, split, split), out_specs=split)
    given = start(optimizer), images, labels
    ours, wanted = jax.jit(run)(*given), both(*given)
    assert_same(jax.tree.map(lambda x: x[0], ours), wanted, atol=1e-6)


def test_nll_takes_each_labels_log_probability():
    log_probs = jnp.log(jnp.array([[0.25, 0.75], [0.9, 0.1]]))
    np.testing.assert_allclose(
        nll(log_probs, jnp.array([1, 1])), [-np.log(0.75), -np.log(0.1)], rtol=1e-6
    )


def test_images_of_every_type_are_the_same():
    images, _ = toy(5)
    said = functools.partial(apply, start(OPTIMIZER).params, model=MODEL)
    wanted = said(images)
    for dtype in (np.uint16, np.int16, np.int64):
        np.testing.assert_array_equal(said(images.astype(dtype)), wanted)
    np.testing.assert_array_equal(jax.jit(said)(np.int32(images)), wanted)
    np.testing.assert_array_equal(said((images // 2).astype(np.int8)), said(images // 2))
    np.testing.assert_allclose(said(images / np.float32(255)), wanted, rtol=0, atol=1e-6)
    ink = images > 127
    np.testing.assert_array_equal(said(ink), said(np.uint8(255) * ink))
    np.testing.assert_array_equal(said(ink), said(np.float16(ink)))


def calls(images, labels, **settings):
    """Every function that takes images and labels, to be called with these."""
    state, order = start(OPTIMIZER), batches.make_order(np.arange(len(labels)), len(labels))
    train = {"model": MODEL, "optimizer": OPTIMIZER, **settings}
    return {
        "train_step": lambda: train_step(state, images, labels, **train),
        "eval_epoch": lambda: eval_epoch(state.params, images, labels, order, model=MODEL),
        "train_epoch": lambda: train_epoch(state, images, labels, order, **train),
    }


@pytest.mark.parametrize(
    ("value", "found"),
    [
        (np.int16(-1), "int16 .* from -1 to -1; undo their normalisation"),
        (np.int64(256), "int64 .* from 256 to 256; divide them by the value of white"),
        (np.float32(254.5), "float32 .* from 254.5 to 254.5; divide them by 255"),
        (np.float32(1.5), "float32 .* from 1.5 to 1.5; divide"),
        (jnp.float32(-0.5), "float32 .* from -0.5 to -0.5; undo"),
        (np.float64(np.nan), "float64 .* from nan to nan; replace what is not a number"),
    ],
)
def test_images_of_other_values_are_refused(value, found):
    images = value * np.ones((4, 28, 28), value.dtype)
    found = found.replace(".*", r"\(4, 28, 28\)")
    refused = f"^images: integers must be from 0 to 255 and floats from 0 to 1, not {found}"
    others = {"apply": lambda: apply(start(OPTIMIZER).params, images, model=MODEL)}
    for call in (calls(images, np.zeros(4, np.int32)) | others).values():
        with pytest.raises(ValueError, match=refused):
            call()


FORMS = {
    "flat": lambda x: x.reshape(len(x), 784),
    "a channel last": lambda x: x[..., None],
    "a channel first": lambda x: x[:, None],
    "the number last": lambda x: x.transpose(1, 2, 0),
    "the number last, with a channel": lambda x: x.transpose(1, 2, 0)[:, :, None],
    "int64": np.int64,
    "float32 up to 255": np.float32,
    "float64 up to 255, flat, on a device": lambda x: jnp.array(x.reshape(len(x), 784), float),
    "lists": lambda x: x.tolist(),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_in_other_forms_are_recognised(form):
    images, labels = toy(6)
    for name, call in calls(FORMS[form](images), labels).items():
        wanted = calls(images, labels)[name]
        assert_same(call(), wanted())
    params, given = start(OPTIMIZER).params, FORMS[form](images)
    wanted = apply(params, images, model=MODEL)
    assert_same(apply(params, given, model=MODEL), wanted)
    if not isinstance(given, list) and "255" not in form:  # Shapes are known inside of jit, too.
        inside = jax.jit(lambda images: apply(params, images, model=MODEL))
        np.testing.assert_allclose(inside(given), wanted, rtol=0, atol=1e-6)
    assert_same(apply(params, images[0].ravel(), model=MODEL), wanted[:1], atol=1e-6)


def test_black_and_white_images_are_the_same_in_every_type():
    white, params = (toy(6)[0] > 127).astype(np.uint8), start(OPTIMIZER).params
    wanted = apply(params, 255 * white, model=MODEL)
    for given in (white, np.int16(white), jnp.int32(white), np.float64(white), white == 1):
        assert_same(apply(params, given, model=MODEL), wanted)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((6, 785), r"\(N, 28, 28\) or \(N, 784\), not uint8 \(6, 785\)"),
        ((784, 6), "reshape them, and turn colours into grey"),
        ((6, 28, 28, 3), "turn colours into grey"),
        ((28, 28, 3), "turn colours into grey"),  # One picture in colours, or three images.
        ((6, 14, 56), r"\(N, 28, 28\)"),
        ((), "reshape them"),
    ],
)
def test_images_of_other_shapes_are_refused_in_one_line_inside_of_jit_too(shape, message):
    images, params = np.zeros(shape, np.uint8), start(OPTIMIZER).params
    call = functools.partial(apply, params, model=MODEL)
    for function in (call, jax.jit(call)):
        with pytest.raises(ValueError, match=f"^images: must be .*{message}") as caught:
            function(images)
        assert "\n" not in str(caught.value)
    for call in calls(images, np.zeros(6, np.int32)).values():
        with pytest.raises(ValueError, match=message):
            call()


@pytest.mark.parametrize(
    "reading",
    ["rows", "columns", *(pytest.param(r, marks=pytest.mark.slow) for r in ("windows", "pixels"))],
)
def test_networks_for_images_of_another_size_take_them_and_no_others(reading):
    model, images = RowLSTM(8, reading=reading), toy(5)[0]
    small = init(model, OPTIMIZER, key=jax.random.key(0), shape=(12, 16)).params
    assert apply(small, images[:, :12, :16], model=model).shape == (5, 10)
    params, last = start(OPTIMIZER).params, images.transpose(1, 2, 0)
    if reading in ("columns", "pixels"):
        params = init(model, OPTIMIZER, key=jax.random.key(0)).params
        # These networks could also read 28 images of 28 rows and 5 columns.
        with pytest.raises(
            ValueError, match=r"can be \(28, 28, N\).*another number of images than 28"
        ):
            apply(params, last, model=model)
    if reading in ("rows", "columns", "windows"):
        with pytest.raises(ValueError, match="of the size that the network reads, not uint8"):
            apply(small, images, model=model)
        with pytest.raises(ValueError, match="of the size that the network reads, not uint8"):
            apply(small, images.reshape(5, 784), model=model)


@pytest.mark.parametrize(
    "labels",
    [np.eye(10)[:6], np.arange(6.0), np.arange(6)[:, None], np.arange(6).astype(str)],
    ids=["one-hot", "float", "column", "text"],
)
def test_labels_of_other_forms_are_refused_in_one_line(labels):
    for call in calls(toy(6)[0], labels).values():
        with pytest.raises(ValueError, match=r"^labels: must be \(N,\).*argmax\(1\)") as caught:
            call()
        assert "\n" not in str(caught.value)
    for call in calls(toy(6)[0], np.arange(5)).values():
        with pytest.raises(ValueError, match="must have the same length, not 6 and 5"):
            call()


def test_the_module_itself_takes_floats_alone():
    with pytest.raises(ValueError, match="must be floats from 0 to 1, not uint8"):
        MODEL.apply({"params": start(OPTIMIZER).params}, toy(2)[0])


@pytest.mark.parametrize("label", [-1, 10])
def test_labels_that_name_no_class_are_refused(label):
    images, labels = toy(6)
    labels[:] = 0, 9, label, label, 3, 4
    for call in calls(images, labels).values():
        with pytest.raises(ValueError, match=r"labels: must be from 0 to 9, not from (-1|0) to "):
            call()
    kept = labels != label  # What only fills the batch may have any label.
    settings = {"model": MODEL, "optimizer": OPTIMIZER}
    filled = train_step(start(OPTIMIZER), images, labels, kept, **settings)
    wanted = train_step(start(OPTIMIZER), images[kept], labels[kept], **settings)
    assert_same(filled, wanted, atol=2e-6)


def test_labels_that_name_no_class_do_not_count_where_they_cannot_be_seen():
    images, labels = toy(6)
    labels[:] = 3, -1, 10, 0, 2**30, 9
    kept, smoothed = np.array([0, 3, 5]), {"label_smoothing": 0.1}
    for name in ("train_step", "eval_epoch"):
        wanted = calls(images[kept], labels[kept], **smoothed)[name]
        unseen = jax.jit(lambda *given, name=name: calls(*given, **smoothed)[name]())
        assert_same(unseen(images, labels), wanted(), atol=2e-6)
    log_probs = jnp.log(jnp.full((3, 4), 0.25))
    np.testing.assert_allclose(nll(log_probs, jnp.array([-1, 4, 3])), [np.nan, np.nan, np.log(4)])


@pytest.mark.usefixtures("x64")
def test_a_float64_step_is_exact():
    images, labels = toy(6)
    model = RowLSTM(5, dropout=0.2)
    shapes = jax.eval_shape(lambda: init(model, OPTIMIZER, key=jax.random.key(0))).params
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda x: rng.normal(0, 0.3, x.shape), shapes)
    wanted = numpy_row_lstm(params, images / 255, 1, False)
    log_probs = apply(params, images, model=model)
    np.testing.assert_allclose(log_probs, wanted, rtol=0, atol=1e-13)
    order = batches.make_order(np.arange(6), 4)
    tested = eval_epoch(params, images, labels, order, model=model)
    np.testing.assert_allclose(tested.loss, -wanted[np.arange(6), labels].sum(), rtol=1e-13)

    step = functools.partial(train_step, model=model, optimizer=OPTIMIZER, key=jax.random.key(0))
    step = functools.partial(step, distortion=Distortion(1.0, 10.0, 0.1, 10.0, 0.5))
    state = State(params, OPTIMIZER.init(params), jnp.int32(0))
    stepped = jax.eval_shape(step, state, images, labels)
    found = {leaf.dtype.name for leaf in jax.tree.leaves((stepped[0].params, stepped[1].loss))}
    assert found == {"float64"}
    added = jax.vmap(functools.partial(psum, axis_name="half"), axis_name="half")
    np.testing.assert_array_equal(added(np.array([1.0, 1e-12])), [1 + 1e-12] * 2)


@pytest.mark.parametrize("total", [4, 5, 10, 1000])
def test_schedules_start_peak_and_end_where_they_say(total):
    cosine = make_schedule("cosine", 0.5, total)
    one_cycle = make_schedule("one_cycle", 0.5, total)
    assert make_schedule("constant", 0.5, total) == 0.5
    np.testing.assert_allclose([cosine(0), cosine(total)], [0.5, 0], atol=1e-6)
    rates = np.asarray(jax.jit(jax.vmap(one_cycle))(np.arange(total + 1)))
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
    assert_same(eval_params(state), average, atol=1e-5)
    plain = start(make_optimizer("sgd", 0.5))
    assert eval_params(plain) is plain.params


def test_the_running_average_does_not_drift():
    params = jnp.linspace(0.1, 3, 50)
    optimizer = make_optimizer("sgd", 0.5, ema=0.999)

    def step(state, _):
        return optimizer.update(jnp.zeros(50), state, params)[1], None

    state, _ = jax.lax.scan(step, optimizer.init(params), length=20_000)
    average = eval_params(State(None, state, jnp.int32(0)))
    np.testing.assert_allclose(average, params, rtol=1e-6)


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
        apply(params, images, model=model), apply(params, images, model=RowLSTM(400, 2)), atol=1e-6
    )
    with pytest.raises(ValueError, match="need a key"):
        train_step(
            start(make_optimizer()),
            *toy(6),
            model=RowLSTM(8, dropout=0.1),
            optimizer=make_optimizer(),
        )


def test_input_dropout_leaves_pixels_out_of_training_alone():
    model = RowLSTM(8, input_dropout=0.25)
    images = jax.random.uniform(jax.random.key(0), (50, 28, 28), minval=0.5)
    keys = jax.random.split(jax.random.key(1), 50)
    params = model.init(jax.random.key(2), images)["params"]
    # A slope for each pixel shows which pixels the network gets, and how strongly.
    slope = jax.grad(lambda x, keys: model.apply({"params": params}, x, keys=keys).sum())
    kept = np.asarray(slope(images, keys)) != 0
    assert 0.74 < kept.mean() < 0.76
    assert (kept[0] != kept[1]).any()
    np.testing.assert_array_equal(np.asarray(slope(images[1:], keys[1:])) != 0, kept[1:])
    np.testing.assert_allclose(
        model.apply({"params": params}, images, keys=keys),
        model.apply({"params": params}, images * kept / 0.75),
        atol=1e-6,
    )
    with pytest.raises(ValueError, match="need a key"):
        train_step(start(make_optimizer()), *toy(6), model=model, optimizer=make_optimizer())


def test_ten_epochs_compile_each_function_once():
    images, labels = toy()
    optimizer = make_optimizer("sgd", 0.1)
    state = start(optimizer)
    before = train_epoch.__wrapped__._cache_size()
    for epoch in range(10):
        order = batches.epoch_order(57, 10, seed=0, epoch=epoch)
        state, _ = train_epoch(
            state, images, labels, order, model=RowLSTM(hidden_size=8), optimizer=optimizer
        )
    assert train_epoch.__wrapped__._cache_size() == before + 1
    assert make_optimizer("sgd", 0.1) is optimizer


@pytest.mark.parametrize("seed", [0, 1, 2**31, 2**32 - 1])
def test_a_runs_keys_are_its_seed_with_their_purpose_folded_in(seed):
    for made, purpose in ((init_key(seed), 0), (step_key(seed), 2)):
        wanted = jax.random.fold_in(jax.random.key(seed), purpose)
        np.testing.assert_array_equal(jax.random.key_data(made), jax.random.key_data(wanted))


def test_no_two_random_draws_are_correlated():
    keys, draws = [], []

    def note(key, bits):
        keys.append(key.reshape(-1, 2))
        draws.append(bits)
        return bits

    def random_bits(key, width, shape):
        bits = threefry_prng_impl.random_bits(key, width, shape)
        return jax.pure_callback(note, bits, key, bits, vmap_method="expand_dims")

    names = "key_shape", "seed", "split", "fold_in"
    rest = {name: getattr(threefry_prng_impl, name) for name in names}
    noted = define_prng_impl(random_bits=random_bits, name="noted", tag="noted", **rest)
    key = jax.random.key(0, impl=noted)

    settings = {"model": RowLSTM(16, 2, dropout=0.2), "optimizer": make_optimizer("sgd", 0.1)}
    state = jax.block_until_ready(init(**settings, key=key, shape=(4, 4)))
    # Each array of parameters draws 4,096 numbers, and takes the first of them.
    assert [bits.size for bits in draws] == [4096] * len(jax.tree.leaves(state.params))
    draws.clear()
    images, labels = np.zeros((1000, 4, 4), np.uint8), np.zeros(1000, np.int32)
    distortion = Distortion(shift=1.0, rotation=10.0, scale=0.1, shear=10.0, elastic=0.5)
    for _ in range(2):
        state, _ = train_step(state, images, labels, **settings, key=key, distortion=distortion)
        jax.block_until_ready(state)
    # In each step, for each image: the distortion's amounts and knots, and two layers' units.
    drawn = np.concatenate([bits.reshape(1000, -1) for bits in draws], axis=1)
    assert drawn.shape == (1000, 2 * (6 + 2 * 7 * 7 + 2 * 16))
    # By chance, the largest of these 37,000 correlations is about 4.4 / sqrt(1000) = 0.14.
    assert abs(np.corrcoef(drawn.T) - np.eye(drawn.shape[1])).max() < 0.2
    keys = np.concatenate(keys)
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_any_kind_of_zero_is_the_same_optimizer():
    names = "momentum", "weight_decay", "gradient_clip", "ema"
    plain = make_optimizer("sgd", 0.1)
    for zero in (0, np.int64(0), np.float32(0), False, jnp.float32(0)):
        assert make_optimizer("sgd", 0.1, **dict.fromkeys(names, zero)) is plain
    # With a learning rate of its own, so that the cache holds no optimizer of another test.
    for zero in (0, 0.0):
        optimizer = make_optimizer("sgd", 0.125, **dict.fromkeys(names, zero))
        update, _ = optimizer.update(jnp.ones(3), optimizer.init(jnp.ones(3)), jnp.ones(3))
        np.testing.assert_array_equal(update, np.full(3, -0.125))
    one = make_optimizer("sgd", 1, momentum=0.5, swept=["learning_rate"])
    assert one is make_optimizer("sgd", True, momentum=0.5, swept=("learning_rate",))
