"""The native kernel against a float64 loop, finite differences and the scan, at every size."""

import functools
import hashlib
import importlib.metadata
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import numpy_lstm
from hypothesis import assume, given, settings
from jax import export
from jax.sharding import Mesh, PartitionSpec

from rnn_mnist import Config, InputError, RowLSTM, kernels
from rnn_mnist.kernels import library
from rnn_mnist.model.lstm import load_kernel, lstm
from rnn_mnist.parallel.mesh import find_devices, make_mesh
from rnn_mnist.training import default_cpu_count
from rnn_mnist.training import setup as plan

try:
    kernels.load()
except ImportError as error:
    pytest.skip(f"the native kernel is not here: {error}", allow_module_level=True)

SOURCE = Path(__file__).parents[2] / "rnn_mnist" / "kernels"


def make_case(batch, steps, features, hidden, *, seed=0, dtype=np.float32, lead=()):
    """Asymmetric parameters, inputs of which half are zero, and a carry."""
    rng = np.random.default_rng(seed)
    shapes = {
        "weight_ih": (features, 4 * hidden),
        "weight_hh": (hidden, 4 * hidden),
        "bias_ih": (4 * hidden,),
        "bias_hh": (4 * hidden,),
    }
    params = {
        name: rng.normal(0.02, 0.8 / (features + hidden) ** 0.5, (*lead, *shape)).astype(dtype)
        for name, shape in shapes.items()
    }
    inputs = rng.normal(size=(*lead, batch, steps, features))
    inputs = (inputs * (rng.random(inputs.shape) < 0.5)).astype(dtype)
    # As digits have margins: features that are zero in all rows, and others in half of the rows.
    inputs[..., : features // 3] = 0
    inputs[..., : batch // 2, :, features - features // 4 :] = 0
    c, h = rng.normal(0, 0.5, (2, *lead, batch, hidden)).astype(dtype)
    return params, inputs, (c, h)


def exact(tree):
    return jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), tree)


@functools.partial(jax.jit, static_argnames=("reverse", "sequence", "kernel"))
def pulled_back(params, inputs, carry, gradients, *, reverse=False, sequence=True, kernel="native"):
    """Results of the kernel, and gradients of their product with `gradients`."""
    run = functools.partial(lstm, reverse=reverse, sequence=sequence, kernel=kernel)
    results, pull = jax.vjp(run, params, inputs, carry)
    return results, pull(gradients)


@settings(max_examples=15, deadline=None, derandomize=True)
@given(
    sizes=st.tuples(*[st.one_of(st.integers(1, 40), st.integers(1, 300))] * 4),
    reverse=st.booleans(),
    sequence=st.booleans(),
    seed=st.integers(0, 99),
)
def test_any_size_equals_a_float64_loop(sizes, reverse, sequence, seed):
    batch, steps, features, hidden = sizes
    assume(batch * steps * hidden * (features + hidden) < 2e8)
    case = make_case(*sizes, seed=seed)
    rng = np.random.default_rng(seed)
    hidden_states, (c, h) = numpy_lstm(*exact(case), reverse=reverse)
    wanted = (hidden_states if sequence else hidden_states[:, :0]), (c, h)
    gradients = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), wanted)
    ours, slopes = pulled_back(*case, gradients, reverse=reverse, sequence=sequence)
    # A cell state of hundreds of units is off by up to 1.3e-4, and by 1.6e-4 with the scan.
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=5e-6, atol=3e-4), ours, wanted)
    # The slope of the loop along a random direction, in each argument by itself.
    for argument in range(3):
        direction = jax.tree.map(lambda x: rng.normal(size=x.shape), case[argument])
        slope = dot(slopes[argument], direction)
        differences = []
        for step in (1e-7, -1e-7):
            moved = list(exact(case))
            moved[argument] = jax.tree.map(lambda x, d: x + step * d, moved[argument], direction)  # noqa: B023
            hidden_states, carry = numpy_lstm(*moved, reverse=reverse)
            states = hidden_states if sequence else hidden_states[:, :0]
            differences.append(dot((states, carry), gradients))
        size = dot(slopes[argument], slopes[argument]) ** 0.5 * dot(direction, direction) ** 0.5
        wanted_slope = (differences[0] - differences[1]) / 2e-7
        np.testing.assert_allclose(slope, wanted_slope, rtol=1e-4, atol=1e-6 * size + 1e-5)


def dot(a, b):
    """Of two trees, in float64."""
    leaves = zip(jax.tree.leaves(exact(a)), jax.tree.leaves(exact(b)), strict=True)
    return sum(float(np.vdot(x, y)) for x, y in leaves)


@pytest.mark.parametrize(
    ("sizes", "reverse"),
    [
        ((100, 28, 28, 20), False),
        ((7, 5, 3, 33), True),
        ((1, 1, 1, 1), False),
        ((23, 4, 60, 130), True),
        ((11, 3, 2, 4), False),
        # One to four columns beyond the last full vector, or alone.
        ((13, 4, 17, 35), False),
        ((9, 3, 3, 2), True),
    ],
)
def test_every_gradient_equals_the_scans(sizes, reverse):
    case = make_case(*sizes)
    (results, grads), (wanted, wanted_grads) = (
        jax.jit(
            jax.value_and_grad(
                lambda *case: sum((x**2).sum() for x in jax.tree.leaves(run(*case))),  # noqa: B023
                argnums=(0, 1, 2),
            )
        )(*case)
        for run in (
            functools.partial(lstm, kernel=kernel, reverse=reverse) for kernel in ("native", "scan")
        )
    )
    np.testing.assert_allclose(results, wanted, rtol=1e-5)
    for ours, theirs in zip(jax.tree.leaves(grads), jax.tree.leaves(wanted_grads), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * np.abs(theirs).max())


def test_any_true_value_reads_backwards():
    case = make_case(2, 3, 4, 5)
    wanted, _ = lstm(*case, reverse=True, kernel="scan")
    for true in (1, np.True_, True):  # In this order: JAX's caches take the first for the others.
        for kernel in ("native", "scan"):
            hidden, _ = lstm(*case, reverse=true, sequence=true, kernel=kernel)
            np.testing.assert_allclose(hidden, wanted, atol=1e-6)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize("kernel", ["native", "scan"])
def test_float64_is_exact(kernel):
    case = make_case(9, 7, 5, 6, dtype=np.float64)
    wanted = numpy_lstm(*case)
    ours, slopes = pulled_back(*case, jax.tree.map(np.ones_like, wanted), kernel=kernel)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-14), ours, wanted)
    # In the widest type of any array, as if all had it.
    for part in range(3):
        mixed = list(case)
        mixed[part] = jax.tree.map(np.float32, case[part])
        ours, wanted = lstm(*mixed, kernel=kernel), numpy_lstm(*exact(mixed))
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-14), ours, wanted)

    def total(case):
        hidden, (c, h) = numpy_lstm(*case)
        return hidden.sum() + c.sum() + h.sum()

    leaves, tree = jax.tree.flatten(case)
    rng = np.random.default_rng(0)
    for number, slope in enumerate(jax.tree.leaves(slopes)):
        for index in map(tuple, rng.integers(0, slope.shape, (20, slope.ndim))):
            values = []
            for step in (1e-6, -1e-6):
                moved = [leaf.copy() for leaf in leaves]
                moved[number][index] += step
                values.append(total(jax.tree.unflatten(tree, moved)))
            difference = (values[0] - values[1]) / 2e-6
            np.testing.assert_allclose(slope[index], difference, rtol=1e-7, atol=1e-8)


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(
    ("sizes", "blank", "reverse", "sequence"),
    [
        ((100, 28, 28, 20), 4, False, False),
        ((23, 40, 1, 12), 39, False, True),
        ((12, 6, 3, 33), 6, True, True),
        ((60, 5, 2, 130), 2, True, False),
        ((1, 7, 3, 5), 3, False, True),
    ],
)
def test_first_steps_without_input_are_shared(sizes, blank, reverse, sequence):
    """Against the scan, in float64 and in float32; rows have input from different steps on."""
    params, inputs, carry = make_case(*sizes, dtype=np.float64)
    zeros, rng = jax.tree.map(np.zeros_like, carry), np.random.default_rng(1)
    first = blank + rng.integers(0, 2, sizes[0])  # The first step with input, of each row.
    step = np.arange(sizes[1])[:: -1 if reverse else 1]
    inputs[step < first[:, None]] = 0
    read = functools.partial(lstm, reverse=reverse, sequence=sequence)
    shapes = jax.eval_shape(functools.partial(read, kernel="scan"), params, inputs, zeros)
    gradients = jax.tree.map(lambda x: rng.normal(size=x.shape), shapes)

    def pulled(kernel, case, gradients):
        run = functools.partial(read, kernel=kernel)
        results, pull = jax.vjp(lambda params: run(params, *case[1:]), case[0])
        return results, pull(gradients)

    case = params, inputs, zeros
    wanted = pulled("scan", case, gradients)
    ours = pulled("native", case, gradients)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-11), ours, wanted)
    ours = pulled("native", *jax.tree.map(np.float32, (case, gradients)))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-3), ours, wanted)


def gate(x, which):
    """The kernel's own sigmoid or tanh of x (B,), through a layer of one unit and one step."""
    weight, bias = np.zeros((1, 4), np.float32), np.zeros(4, np.float32)
    if which == "sigmoid":  # c = sigmoid(x) * 1 + 0
        weight[0, 1], bias[0], c = 1, -100, 1.0
    else:  # c = 0 + 1 * tanh(x)
        weight[0, 2], bias[0], c = 1, 100, 0.0
    params = {"weight_ih": weight, "weight_hh": 0 * weight, "bias_ih": bias, "bias_hh": 0 * bias}
    carry = np.full((len(x), 1), c, np.float32), np.zeros((len(x), 1), np.float32)
    return np.asarray(lstm(params, x[:, None, None], carry, kernel="native")[1][0])[:, 0]


def test_an_infinite_weight_meets_a_first_state_of_zeros_as_in_the_scan():
    params, inputs, _ = make_case(7, 1, 9, 12)
    params["weight_hh"][3, 5] = np.inf
    zeros = np.zeros((7, 12), np.float32)
    ours, scans = (lstm(params, inputs, (zeros, zeros), kernel=k)[1][1] for k in ("native", "scan"))
    np.testing.assert_array_equal(np.isnan(ours), np.isnan(scans))
    assert np.isnan(ours).any()


@pytest.mark.parametrize("which", ["sigmoid", "tanh"])
def test_activations_are_accurate(which):
    rng = np.random.default_rng(0)
    near = np.concatenate([rng.uniform(-85, 85, 300_000), rng.normal(0, 4, 300_000)])
    tiny = 10.0 ** rng.uniform(-30, 0, 100_000) * rng.choice([-1, 1], 100_000)
    x = np.concatenate([near, tiny, [0.0]]).astype(np.float32)
    wanted = {"sigmoid": lambda x: 1 / (1 + np.exp(-x)), "tanh": np.tanh}[which](np.float64(x))
    ulps = np.abs(gate(x, which) - wanted) / np.spacing(np.abs(wanted).astype(np.float32))
    assert ulps[np.abs(wanted) > 1e-7].max() <= 3
    assert ulps.max() <= 5.5
    far = np.float32([-1e38, -1000, -88, 88, 1000, 1e38])
    ends = {"sigmoid": [0] * 3 + [1] * 3, "tanh": [-1] * 3 + [1] * 3}[which]
    np.testing.assert_allclose(gate(far, which), ends, atol=1e-30)
    assert np.isnan(gate(np.float32([np.nan]), which))


@pytest.mark.parametrize("scale", [1e-42, 1e-38, 1e4, 1e20, 1e35])
def test_extreme_values_give_what_the_scan_gives(scale):
    params, inputs, carry = make_case(13, 4, 17, 9)
    inputs = inputs * np.float32(scale)
    for weights in (params, jax.tree.map(lambda x: x * np.float32(30), params)):
        ours, wanted = (
            lstm(weights, inputs, carry, kernel=kernel) for kernel in ("native", "scan")
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), ours, wanted)


def test_nan_and_infinity_stay_in_their_rows():
    params, inputs, carry = make_case(13, 4, 17, 9)
    sound, _ = lstm(params, inputs, carry, kernel="native")
    inputs[3, 2, 5], inputs[7, 1, 16], inputs[8, 0, 6] = np.nan, np.inf, -np.inf
    ours, wanted = (lstm(params, inputs, carry, kernel=kernel) for kernel in ("native", "scan"))
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), ours, wanted)
    assert np.isnan(ours[0][3, 2:]).all()
    rest = np.delete(np.arange(13), [3, 7, 8])
    np.testing.assert_array_equal(ours[0][rest], sound[rest])
    ones = jax.tree.map(jnp.ones_like, ours)
    _, (slopes, _, _) = pulled_back(params, inputs, carry, ones)
    assert np.isnan(slopes["bias_ih"]).all()
    assert np.isnan(slopes["weight_hh"]).all()
    # An infinite weight counts even where all inputs are zero, as it does in a product.
    params["weight_ih"][0, 3] = np.inf
    blank = np.zeros_like(inputs)
    assert np.isnan(lstm(params, blank, carry, kernel="native")[0][:, :, 3]).all()


def test_nothing_gives_nothing():
    for sizes in ((0, 3, 4, 5), (2, 0, 4, 5), (2, 3, 0, 5)):
        case = make_case(*sizes)
        ours, wanted = (lstm(*case, kernel=kernel) for kernel in ("native", "scan"))
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), ours, wanted)
        ones = jax.tree.map(jnp.ones_like, ours)
        slopes = pulled_back(*case, ones)[1]
        wanted = jax.vjp(functools.partial(lstm, kernel="scan"), *case)[1](ones)
        jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), slopes, wanted)


def test_what_does_not_belong_together_is_refused():
    params, inputs, (c, h) = make_case(4, 3, 28, 5)
    longer = np.zeros((4, 3, 29), np.float32)
    for wrong in (
        (params, longer, (c, h)),
        (params, inputs, (c[:3], h)),
        (params, inputs[0], (c, h)),
        (params | {"bias_hh": params["bias_hh"][:5]}, inputs, (c, h)),
        (params, jnp.bfloat16(inputs), (c, h)),
    ):
        with pytest.raises(ValueError, match="must all be float32 or all float64, not"):
            kernels.lstm(*wrong)
    with pytest.raises(ValueError, match="weight_ih"):
        lstm(params, longer, (c, h))


def test_other_derivatives_need_the_scan():
    params, inputs, carry = make_case(2, 3, 4, 5)

    def total(inputs, kernel="native"):
        return lstm(params, inputs, carry, kernel=kernel)[0].sum()

    hessian = jax.jit(jax.hessian(functools.partial(total, kernel="scan")))(inputs)
    assert hessian.shape == (2, 3, 4) * 2
    ones, slope = np.ones_like(inputs), jax.grad(total)
    for asked in (
        lambda: jax.jvp(total, (inputs,), (ones,)),
        lambda: jax.jit(jax.jacfwd(total))(inputs),
        lambda: jax.linearize(total, inputs)[1](ones),
        lambda: jax.hessian(total)(inputs),
        lambda: jax.grad(lambda inputs: (slope(inputs) ** 2).sum())(inputs),
    ):
        with pytest.raises(NotImplementedError, match=r'first derivative.*choose kernel="scan"'):
            asked()
    # First derivatives in reverse mode, however they are written.
    two = jnp.stack([inputs, inputs])
    for slopes in (
        jax.linear_transpose(jax.linearize(total, inputs)[1], inputs)(np.float32(1))[0],
        jax.grad(jax.checkpoint(total))(inputs),
        jax.grad(lambda two: jax.vmap(total)(two).sum())(two)[1],
    ):
        np.testing.assert_allclose(slopes, slope(inputs), rtol=1e-6, atol=1e-6)


def test_what_nobody_asks_for_is_not_computed():
    params, inputs, carry = make_case(2, 3, 4, 5)
    slope = jax.grad(lambda params: lstm(params, inputs, carry, kernel="native")[0].sum())
    (call,) = re.findall("@rnn_mnist_lstm_backward.*->.*", jax.jit(slope).lower(params).as_text())
    assert "tensor<2x0x4xf32>, tensor<0x5xf32>" in call  # Gradients of the inputs and of h.


def slopes_of(params, inputs, carry):
    """What is asked of a single model: results and gradients."""
    results = lstm(params, inputs, carry, kernel="native")
    ones = jax.tree.map(jnp.ones_like, results)
    return pulled_back(params, inputs, carry, ones)


@pytest.mark.parametrize("sizes", [(5, 3, 6, 7), (33, 4, 28, 20)])
def test_vmap_equals_a_loop_over_models(sizes):
    params, inputs, carry = make_case(*sizes, lead=(3, 2))
    single = jax.tree.map(
        lambda *leaves: np.stack(leaves).reshape(3, 2, *leaves[0].shape),
        *[
            slopes_of(*jax.tree.map(lambda x: x[i, j], (params, inputs, carry)))  # noqa: B023
            for i in range(3)
            for j in range(2)
        ],
    )
    nested = jax.jit(jax.vmap(jax.vmap(slopes_of)))(params, inputs, carry)
    jax.tree.map(np.testing.assert_array_equal, nested, single)
    # Each array on an axis of its own, and an axis of one.
    first = jax.tree.map(lambda x: x[:, 0], params)
    second = jax.tree.map(lambda x: x[:1, 1], (inputs, carry))
    crossed = jax.vmap(jax.vmap(slopes_of, (0, None, None)), (None, 0, 0))(first, *second)
    alone = slopes_of(jax.tree.map(lambda x: x[2], first), *jax.tree.map(lambda x: x[0], second))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0, 2], y), crossed, alone)
    # The same images for all models, and the same model for all images.
    shared = jax.tree.map(lambda x: x[0, 0], (inputs, carry))
    mapped = jax.vmap(jax.vmap(slopes_of, (0, None, None)), (0, None, None))(params, *shared)
    alone = slopes_of(jax.tree.map(lambda x: x[2, 1], params), *shared)
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[2, 1], y), mapped, alone)
    one = jax.tree.map(lambda x: x[1, 0], params)
    mapped = jax.vmap(jax.vmap(slopes_of, (None, 0, 0)), (None, 0, 0))(one, inputs, carry)
    alone = slopes_of(one, *jax.tree.map(lambda x: x[0, 1], (inputs, carry)))
    jax.tree.map(lambda x, y: np.testing.assert_array_equal(x[0, 1], y), mapped, alone)


def test_in_a_scan_with_donated_buffers():
    params, inputs, carry = make_case(6, 4, 5, 5)

    def trained(kernel):
        def step(params, _):
            slope = jax.grad(lambda p: lstm(p, inputs, carry, kernel=kernel)[0].sum())(params)
            return jax.tree.map(lambda p, s: p - 0.01 * s, params, slope), None

        run = jax.jit(lambda params: jax.lax.scan(step, params, None, 20)[0], donate_argnums=0)
        return run(jax.tree.map(jnp.array, params))

    close = functools.partial(np.testing.assert_allclose, rtol=0, atol=1e-5)
    jax.tree.map(close, trained("native"), trained("scan"))


def test_export_refuses_the_kernel_and_takes_the_scan():
    pytest.importorskip("flatbuffers")
    images = jax.ShapeDtypeStruct((4, 28, 28), np.float32)
    for kernel in ("native", "scan"):
        model = RowLSTM(6, kernel=kernel)
        params = model.init(jax.random.key(0), jnp.zeros((1, 28, 28)))
        call = jax.jit(functools.partial(model.apply, params))
        if kernel == "native":
            with pytest.raises(ValueError, match="rnn_mnist_lstm_forward"):
                export.export(call)(images).serialize()
        else:
            exported = export.export(call, platforms=["cpu", "cuda", "tpu"])(images)
            again = export.deserialize(exported.serialize())
            zeros = jnp.zeros((4, 28, 28))
            np.testing.assert_allclose(again.call(zeros), call(zeros), atol=1e-6)


def test_with_a_platform_only_its_way_is_traced_and_the_bits_are_the_same():
    case = make_case(3, 2, 4, 5)
    traced = {
        platform: str(jax.make_jaxpr(functools.partial(lstm, platform=platform))(*case))
        for platform in (None, "cpu", "tpu")
    }
    found = {name: ("ffi_call" in text, "scan" in text) for name, text in traced.items()}
    assert found == {None: (True, True), "cpu": (True, False), "tpu": (False, True)}
    for one, other in zip(
        jax.tree.leaves(jax.jit(lstm)(*case)),
        jax.tree.leaves(jax.jit(functools.partial(lstm, platform="cpu"))(*case)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    planned = plan.make_plan(Config(), make_mesh(find_devices(1))).learner.model
    assert planned.platform == "cpu"


def test_an_unknown_platform_is_refused():
    with pytest.raises(ValueError, match=r"platform must be one of cpu, gpu, .*, not 'GPU'"):
        lstm(*make_case(3, 2, 4, 5), platform="GPU")
    assert kernels.platform_of("cuda") == kernels.platform_of("gpu") == "cuda"


def test_without_the_kernel_the_scan_runs_and_says_so(monkeypatch):
    def missing(*_):
        raise ImportError("it was not built: no compiler")

    monkeypatch.setattr(kernels, "load", missing)
    case, mesh = make_case(3, 2, 4, 5), make_mesh(find_devices(1))
    assert lstm(*case)[0].shape == (3, 2, 5)
    made = plan.make_plan(Config(), mesh)
    wanted = "the native kernel cannot be used: it was not built: no compiler"
    assert made.kernel == f"scan; {wanted}"
    with pytest.raises(ValueError, match=wanted):
        lstm(*case, kernel="native")
    with pytest.raises(InputError, match=f"kernel: {wanted}; choose auto or scan"):
        plan.make_plan(Config(kernel="native"), mesh)


def test_a_library_that_does_not_fit_is_not_used(tmp_path, monkeypatch):
    def not_installed(_):
        raise importlib.metadata.PackageNotFoundError

    built = library.find()[0]
    binary, digest = built.read_bytes(), library.digest_of_sources().encode()
    # An older library carries the digest of older sources.
    older = hashlib.sha256(b"older").hexdigest().encode()
    file = tmp_path / built.name
    monkeypatch.setattr(kernels, "__path__", [str(tmp_path)])
    monkeypatch.setattr(importlib.metadata, "distribution", not_installed)
    for content, wanted in {
        binary.replace(digest, older): "was not compiled from this version's sources",
        b"not a library": "was not compiled from this version's sources",
        binary[: binary.index(digest) + 1000]: "is truncated",
        binary[:18] + b"\xff\xff" + binary[20:]: ":",  # For another kind of processor.
    }.items():
        file.write_bytes(content)
        with pytest.raises(ImportError, match=f"^it cannot be loaded: {file}.*") as error:
            library.load.__wrapped__()
        assert re.search(rf"{wanted}.*; install the package again$", str(error.value))
    # The installed package's library may fit where the clone's own does not.
    monkeypatch.setattr(kernels, "__path__", [str(tmp_path), str(built.parent)])
    assert library.load.__wrapped__()._name == str(built)


def test_every_source_counts_in_the_digest(tmp_path, monkeypatch):
    for folder in ("cpu", "cuda"):
        shutil.copytree(SOURCE / folder, tmp_path / folder)
    monkeypatch.setattr(library, "__file__", str(tmp_path / "library.py"))
    digests = {library.digest_of_sources()}
    for file in sorted(tmp_path.glob("c*/*")):
        file.write_text(file.read_text() + "\n")
        digests.add(library.digest_of_sources())
    # That of four sources, and one for each change. NVRTC compiles lstm.cu from the source.
    assert len(digests) == 5


def test_what_runs_is_chosen_and_named():
    mesh = make_mesh(find_devices(1))
    assert plan.make_plan(Config(), mesh).kernel == f"native, for {kernels.load()}"
    assert plan.make_plan(Config(kernel="scan"), mesh).kernel == "scan"
    assert load_kernel("auto", "cpu", 1, 1, "bfloat16") is None
    with pytest.raises(InputError, match="computes in float32, not in bfloat16"):
        plan.make_plan(Config(kernel="native", precision="bfloat16"), mesh)
    assert default_cpu_count(Config(batch_size=10**6)) == 1


# ------------------------------------------------------- in processes of their own


def child() -> None:
    """Print results of the kernel on all devices."""
    mesh = Mesh(np.array(jax.devices()), ("batch",))
    whole, split = PartitionSpec(), PartitionSpec("batch")
    params, inputs, carry = make_case(64, 6, 28, 20, lead=(3, 2))
    nested = jax.vmap(jax.vmap(slopes_of, (0, None, None)), (0, None, None))
    shared = jax.tree.map(lambda x: x[0, 0], (inputs, carry))
    spread = jax.jit(
        jax.shard_map(
            lambda *case: jax.tree.map(lambda x: x[None], nested(*case)),
            mesh=mesh,
            in_specs=(whole, split, split),
            out_specs=split,
            check_vma=False,
        )
    )
    for _ in range(20):
        results = spread(params, *shared)
    assert plan.make_plan(Config(), make_mesh(jax.devices())).kernel.startswith("native")
    sys.stdout.buffer.write(pickle.dumps(jax.device_get(results)))


def run_child(cores, devices):
    code = (
        f"import os, runpy; os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}])\n"
        f"runpy.run_path({__file__!r}, run_name='__main__')"
    )
    environment = {**os.environ, "JAX_NUM_CPU_DEVICES": str(devices)}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environment,
        capture_output=True,
        timeout=120,
        check=True,
    )
    return pickle.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="cores cannot be chosen here")
def test_threads_change_no_bit_and_devices_do_not_wait_for_one_another():
    most = len(os.sched_getaffinity(0))
    results = {(cores, n): run_child(cores, n) for cores in {1, most} for n in (1, 2, 8)}
    for (_, n), result in results.items():
        jax.tree.map(np.testing.assert_array_equal, result, results[1, n])
        # Each device's gradients come first; added up, they are one device's.
        sums = jax.tree.map(lambda x: x.sum(0), result[1][0])
        close = functools.partial(np.testing.assert_allclose, rtol=0, atol=2e-3)
        jax.tree.map(close, sums, jax.tree.map(lambda x: x[0], results[1, 1][1][0]))


@pytest.mark.slow
@pytest.mark.parametrize("level", ["avx2", "baseline"])
def test_every_instruction_set(level):
    if kernels.load() == "baseline" or kernels.load() == level:
        pytest.skip("this is the processor's own")
    check = f"from rnn_mnist import kernels; assert kernels.load() == {level!r}"
    environment = {**os.environ, "RNN_MNIST_LSTM_LEVEL": level}
    subprocess.run([sys.executable, "-P", "-c", check], env=environment, check=True)
    run_tests(environment, "any_size or every_gradient or accurate or extreme or nan")


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="sanitizers are preloaded as Linux does it")
def test_sanitizers_find_nothing(tmp_path):
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("no g++ here")
    (jaxlib,) = importlib.import_module("jaxlib").__path__

    # The processor's own level, compiled as the baseline, which the library then takes.
    wide = [f"-mavx512{part}" for part in ("f", "dq", "bw", "vl")]
    size, columns, *more = {
        "baseline": ["16", "2"],
        "avx2": ["32", "2", "-mavx2", "-mfma"],
        "avx512": ["64", "5", "-mavx2", "-mfma", *wide],
    }[kernels.load()]
    more += ["-DLSTM_LEVEL=baseline", f"-DLSTM_BYTES={size}", f"-DLSTM_COLUMNS={columns}"]
    more += ["-DLSTM_FLOAT64", f'-DLSTM_SOURCES="{library.digest_of_sources()}"']
    more += [f"-isystem{jaxlib}/include", "-ffp-contract=fast", "-fsanitize=address,undefined"]
    sources = ["-std=c++20", "-O1", "-g1", "-fPIC", "-w", "-shared", "-fno-sanitize-recover=all"]
    sources += map(str, sorted((SOURCE / "cpu").glob("*.cc")))
    sources += ["-o", str(tmp_path / "librnn_mnist_lstm.so")]
    subprocess.run([compiler, *more, *sources], check=True)
    # ASan also wants to see C++'s own library from the start.
    runtimes = [
        subprocess.check_output([compiler, f"-print-file-name={name}"], text=True).strip()
        for name in ("libasan.so", "libstdc++.so.6")
    ]
    environment = {
        **os.environ,
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "KERNEL_FOLDER": str(tmp_path),
    }
    run_tests(environment, "any_size or extreme or nan or nothing or vmap")


def run_tests(environment, names):
    """Some of these tests in a process of their own."""
    code = (
        "import os, pytest, sys\n"
        "from rnn_mnist import kernels\n"
        "kernels.__path__[:0] = filter(None, [os.environ.get('KERNEL_FOLDER')])\n"
        f"options = ['-q', '-n', '0', '-p', 'no:cacheprovider', {__file__!r}, '-k', {names!r}]\n"
        "sys.exit(pytest.main(options))"
    )
    # It is the kernel that is tried: XLA's own programs around it may be slow.
    environment = {**environment, "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]


if __name__ == "__main__":
    child()
