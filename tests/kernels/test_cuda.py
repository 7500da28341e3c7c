"""The GPU's kernel without a GPU: compiled for every architecture, and run on the CPU's threads."""

import ctypes
import ctypes.util
import functools
import importlib
import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import sigmoid

from rnn_mnist import kernels
from rnn_mnist.kernels import cuda, library, nvrtc
from rnn_mnist.model.lstm import lstm

HERE, SOURCE = Path(__file__).parent, Path(cuda.__file__).parent / "cuda"
# Processors and bytes of shared memory: a T4, A100, RTX 3090, RTX 4090, H100, B200 and RTX 5090.
DEVICES = [
    cuda.Device(75, 40, 65536),
    cuda.Device(80, 108, 166912),
    cuda.Device(86, 82, 101376),
    cuda.Device(89, 128, 101376),
    cuda.Device(90, 132, 232448),
    cuda.Device(100, 148, 232448),
    cuda.Device(120, 170, 101376),
]
# Two rows in a block, and weights in all three places.
SMALL = cuda.plan(20, 1, DEVICES[4])._replace(rows=2, registers=8, shared=4, rest=8, memory=4608)

# ------------------------------------------------------- NVRTC and the cache of its results


def test_every_size_fits_every_device():
    batches = (1, 7, 100, 150, 300, 1000, 60000)
    for hidden, batch, device in itertools.product(range(1, 257), batches, DEVICES):
        geometry = cuda.plan(hidden, batch, device)
        units = geometry.registers + geometry.shared
        assert geometry.memory <= device.shared
        assert hidden * geometry.split <= geometry.threads <= 256
        assert geometry.threads % 32 == units % 4 == 0
        assert units * geometry.split < hidden + 4 * geometry.split
        assert geometry.rows < 2 * max(1, batch / device.processors)


def nvrtc_or_skip():
    try:
        nvrtc.find_nvrtc()
    except ImportError as error:
        pytest.skip(str(error))


ALL = list(itertools.product((1, 20, 33, 64, 100, 128, 201, 256), (0, 2, 3)))


@pytest.mark.parametrize("device", DEVICES, ids=lambda device: f"sm_{device.architecture}")
@pytest.mark.parametrize(
    "sizes", [[(20, 0), (128, 1)], pytest.param(ALL, marks=pytest.mark.slow)], ids=["two", "all"]
)
def test_nvrtc_compiles_it_for_every_architecture(sizes, device):
    """At most 255 registers and 128 bytes of local memory for a thread, and no warning."""
    nvrtc_or_skip()
    # Batches of one sequence more than one, two or three for each processor.
    for geometry in {cuda.plan(h, n * device.processors + 1, device) for h, n in sizes}:
        compiled = nvrtc.compile_kernel(
            geometry.constants(), device.architecture, "--ptxas-options=-v"
        )
        assert compiled.cubin.startswith(b"\x7fELF")
        for line in compiled.log.splitlines():
            assert re.match(r"ptxas (info|   )", line), (geometry, line)
        registers = [int(n) for n in re.findall(r"Used (\d+) registers", compiled.log)]
        local = [int(n) for n in re.findall(r"(\d+) bytes stack frame", compiled.log)]
        assert len(registers) == len(local) == 2
        assert max(registers) <= min(255, 65536 // geometry.threads), geometry
        assert max(local) <= 128, geometry


def test_without_a_gpu_or_nvrtc_one_line_says_so(monkeypatch):
    if jax.default_backend() != "gpu":
        with pytest.raises(ImportError, match=r"^JAX has no GPU$"):
            kernels.load("cuda", 100, 20)
    with pytest.raises(ImportError, match=r"^it computes in float32, not in bfloat16$"):
        kernels.load("cuda", dtype="bfloat16")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: open(f"{name}/missing"))  # noqa: PTH123, SIM115
    with pytest.raises(ImportError, match=r"^NVRTC is not installed; install the extra cuda13 or"):
        nvrtc.find_nvrtc.__wrapped__()


@pytest.mark.usefixtures("x64")
def test_float64_is_refused():
    shapes = {"weight_ih": (2, 4), "weight_hh": (1, 4), "bias_ih": (4,), "bias_hh": (4,)}
    params = {name: jnp.zeros(shape) for name, shape in shapes.items()}
    carry = jnp.zeros((3, 1)), jnp.zeros((3, 1))
    with pytest.raises(ValueError, match=r"computes in float32, not in float64$"):
        kernels.lstm(params, jnp.zeros((3, 5, 2)), carry, platform="cuda")


def test_an_architecture_that_nvrtc_does_not_know_is_one_line():
    nvrtc_or_skip()
    with pytest.raises(
        ImportError, match=r"^NVRTC [\d.]+ cannot compile it for sm_1: NVRTC_ERR\w+$"
    ):
        nvrtc.compile_kernel(SMALL.constants(), 1)


def test_the_cache_gives_only_what_was_put_in(monkeypatch, tmp_path):
    compiled = []

    def compile(*arguments):
        compiled.append(arguments)
        return nvrtc.Compiled(b"cubin", "")

    monkeypatch.setattr(nvrtc, "compile_kernel", compile)
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: (None, "13.0"))
    monkeypatch.setenv("RNN_MNIST_CACHE", str(tmp_path))
    one, other = (cuda.plan(hidden, 100, DEVICES[0]).constants() for hidden in (20, 21))
    for constants, architecture in [(one, 75), (other, 75), (one, 80), (one, 75)]:
        assert nvrtc.cached_cubin(constants, architecture) == b"cubin"
    assert compiled == [(one, 75), (other, 75), (one, 80)]
    files = list(tmp_path.glob("cubin/*.cubin"))
    whole = files[0].read_bytes()
    for damaged in (b"", whole[:-1], whole[:-1] + b"m", bytes(32) + whole[32:]):
        compiled.clear()
        for file in files:
            file.write_bytes(damaged)
        assert [nvrtc.cached_cubin(one, 75) for _ in range(2)] == [b"cubin"] * 2
        assert compiled == [(one, 75)]
    # A folder that cannot be made.
    monkeypatch.setenv("RNN_MNIST_CACHE", str(files[0]))
    assert [nvrtc.cached_cubin(one, 75) for _ in range(2)] == [b"cubin"] * 2
    assert len(compiled) == 3


# ------------------------------------------------------- lstm.cu on the CPU's threads


def compile_for_host(source, out, *options):
    command = ["g++", "-std=c++20", "-O1", "-g1", "-fPIC", "-shared", "-pthread", *options]
    command += os.environ.get("CUDA_ON_HOST_OPTIONS", "").split()
    subprocess.run([*command, str(HERE / source), "-o", str(out)], check=True)
    return out


@functools.cache
def driver_for(geometry, folder):
    """The stand-in for the driver, which runs a kernel of this geometry: its file."""
    # CUDA's 1 / x is less exact than C++'s.
    source, divisions = re.subn(r"1\.f / \(", "reciprocal(", (SOURCE / "lstm.cu").read_text())
    assert divisions == 2
    folder.joinpath("lstm.cu").write_text(source)
    out = folder / f"driver{len(list(folder.iterdir()))}.so"
    names = [f"-D{name.upper()}={n}" for name, n in list(geometry._asdict().items())[:6]]
    return compile_for_host("cuda_on_host.cc", out, f"-I{folder}", "-w", *names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder for what g++ builds."""
    if not shutil.which("g++") or sys.platform != "linux":
        pytest.skip("this needs g++ on Linux")
    return tmp_path_factory.mktemp("built")


def launch(driver, geometry, kernel, arrays, shapes, *, reverse):
    """Launch a kernel by the stand-in; results that it does not write stay NaN."""
    models, batch, _ = shapes[-1]
    steps = arrays[0].shape[2]
    results = [np.full(shape, np.nan, np.float32) for shape in shapes]
    arrays = [np.ascontiguousarray(array, np.float32) for array in arrays]
    values = [ctypes.c_void_p(x.ctypes.data if x.size else None) for x in [*arrays, *results]]
    values += map(ctypes.c_int, (batch, steps, reverse))
    arguments = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
    blocks = -(-batch // geometry.rows)
    place = [blocks, models, 1, geometry.threads, 1, 1, geometry.memory, None]
    assert ctypes.CDLL(str(driver)).cuLaunchKernel(kernel, *place, arguments, None) == 0
    return results


def loop(products, weight_hh, bias_ih, bias_hh, h, c, *, reverse):
    """The definition: gates, cells, hidden states, and the last hidden and cell states."""
    taken = []
    for t in sorted(range(products.shape[1]), reverse=reverse):
        i, f, g, o = np.split(products[:, t] + bias_ih + bias_hh + h @ weight_hh, 4, axis=1)
        i, f, g, o = sigmoid(i), sigmoid(f), np.tanh(g), sigmoid(o)
        c = f * c + i * g
        h = o * np.tanh(c)
        taken.append((np.concatenate([i, f, g, o], axis=1), c, h))
    taken = taken[::-1] if reverse else taken
    return *(np.stack(x, axis=1) for x in zip(*taken, strict=True)), h, c


def loop_back(gates, cells, c_first, weight_hh, d_hidden, d_h, d_c, *, reverse):
    """The chain rule, from the last step to the first."""
    steps = sorted(range(cells.shape[1]), reverse=reverse)
    d_gates = np.zeros_like(gates)
    for t, before in zip(steps[::-1], [*steps[-2::-1], None], strict=True):
        c_before = c_first if before is None else cells[:, before]
        i, f, g, o = np.split(gates[:, t], 4, axis=1)
        tanh_c, d_h = np.tanh(cells[:, t]), d_h + d_hidden[:, t]
        d_c = d_c + d_h * o * (1 - tanh_c**2)
        slopes = [d_c * g * i * (1 - i), d_c * c_before * f * (1 - f), d_c * i * (1 - g**2)]
        d_gates[:, t] = np.concatenate([*slopes, d_h * tanh_c * o * (1 - o)], axis=1)
        d_h, d_c = d_gates[:, t] @ weight_hh.T, d_c * f
    return d_gates, d_h, d_c


def each_model(function, arrays, **options):
    """A loop over models, in float64."""
    results = [function(*map(np.float64, model), **options) for model in zip(*arrays, strict=True)]
    return [np.stack(x) for x in zip(*results, strict=True)]


KINDS = {  # The lowest and the highest hidden size, batches, and the device.
    "weights in registers": (1, 32, (1, 5), cuda.Device(90, 132, 232448)),
    "two threads for a unit": (33, 96, (1, 3), cuda.Device(90, 132, 232448)),
    "shared memory too": (97, 128, (1, 2), cuda.Device(90, 132, 232448)),
    "two rows and all three places": (193, 256, (3, 3), cuda.Device(75, 2, 65536)),
    "four rows and L2": (97, 128, (5, 7), cuda.Device(75, 1, 22000)),
}


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(1, 4))]
)
@pytest.mark.parametrize("kind", KINDS)
def test_the_kernel_equals_a_float64_loop(kind, seed, folder):
    lowest, highest, batches, device = KINDS[kind]
    rng = np.random.default_rng([seed, lowest])
    hidden = int(rng.integers(lowest, highest + 1))
    geometry = cuda.plan(hidden, batches[1], device)
    driver = driver_for(geometry, folder)
    models, batch = 2, int(rng.integers(batches[0], batches[1] + 1))

    def normal(*shape):
        return rng.normal(size=shape).astype(np.float32)

    steps = int(rng.integers(2, 3 + 2 * geometry.ahead))
    state, step = (models, batch, hidden), (models, batch, steps, hidden)
    of_gates, bias = (*step[:3], 4 * hidden), (models, 4 * hidden)
    weight = normal(models, hidden, 4 * hidden) / hidden**0.5
    for reverse in (False, True):
        run = functools.partial(launch, driver, geometry, reverse=reverse)
        h, c, d_h, d_c = (normal(*state) for _ in range(4))
        arrays = [normal(*of_gates), weight, normal(*bias), normal(*bias), h, c]
        shapes = [of_gates, step, step, state, state]
        wanted = each_model(loop, arrays, reverse=reverse)
        ours = run(b"forward", arrays, shapes)
        for x, y in zip(ours, wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=3e-6)
        # Gates and cells may be null, and all hidden states, too.
        some = [(0,), (0,), step if reverse else (0,), state, state]
        for x, y in zip(run(b"forward", arrays, some), ours, strict=True):
            assert x.size == 0 or (x == y).all()

        d_hidden = normal(*step) if reverse else np.zeros(0)
        rows = weight.swapaxes(1, 2) if geometry.rest else weight
        arrays = [*map(np.float32, wanted[:2]), c, rows, d_hidden, d_h, d_c]
        ours = run(b"backward", arrays, [of_gates, state, state])
        arrays[3:5] = weight, d_hidden if reverse else np.zeros(step)
        for x, y in zip(ours, each_model(loop_back, arrays, reverse=reverse), strict=True):
            np.testing.assert_allclose(x, y, rtol=0, atol=3e-6 * max(1, np.abs(y).max()))


def gates_of(x, folder):
    """The kernel's gates of x (B, T, 80), without weights."""
    batch, steps, _ = x.shape
    state, bias = np.zeros((1, batch, 20)), np.zeros((1, 80))
    arrays = [x[None], np.zeros((1, 20, 80)), bias, bias, state, state]
    shapes = [(1, *x.shape), (1, batch, steps, 20), (0,), state.shape, state.shape]
    return launch(driver_for(SMALL, folder), SMALL, b"forward", arrays, shapes, reverse=False)[0][0]


def test_sigmoid_and_tanh_are_accurate(folder):
    """Within the error that lstm.cu states, with fast instructions at their worst."""
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.uniform(-85, 85, 160_000), rng.normal(0, 4, 120_000)])
    x = np.append(x, 10.0 ** rng.uniform(-30, 0, 120_000) * rng.choice([-1, 1], 120_000))
    x = rng.permutation(x).astype(np.float32).reshape(5000, 4, 20)
    ours = gates_of(x.reshape(1, 5000, 80), folder).reshape(x.shape)
    for gate, exact in enumerate([sigmoid, sigmoid, np.tanh, sigmoid]):
        wanted = exact(np.float64(x[:, gate]))
        ulps = np.abs(ours[:, gate] - wanted) / np.spacing(np.abs(wanted).astype(np.float32))
        assert ulps[wanted >= 0.5].max() <= 3
        assert ulps.max() <= (3 if exact is np.tanh else 7)


def test_nan_stays_in_its_row_and_infinity_saturates(folder):
    rng = np.random.default_rng(0)
    x = rng.normal(size=(3, 4, 80)).astype(np.float32)
    sound = gates_of(x, folder)
    ends = np.float32([-np.inf, -3e38, -1e4, -88.5, 88.5, 1e4, 3e38, np.inf])
    x[0, 1, :8], x[0, 1, 40:48], x[1, 2, 5] = ends, ends, np.nan
    ours = gates_of(x, folder)
    np.testing.assert_allclose(ours[0, 1, :8], [0] * 4 + [1] * 4, atol=1e-37)
    np.testing.assert_array_equal(ours[0, 1, 40:48], [-1] * 4 + [1] * 4)
    assert np.isnan(ours[1, 2, 5])
    np.testing.assert_array_equal(ours[2], sound[2])


# ------------------------------------------------------- launch.cc and its driver


DRIVER = re.findall(r"int \(\*(\w+)\)", (SOURCE / "launch.cc").read_text())  # Its functions.


@functools.cache
def built_launcher(folder):
    """launch.cc with the stand-in as its driver: the file."""
    (jaxlib,) = importlib.import_module("jaxlib").__path__
    options = [f"-isystem{jaxlib}/include", f"-I{SOURCE}", "-Wall", "-Wextra", "-Werror"]
    return compile_for_host("launch_on_host.cc", folder / "launch.so", *options)


@pytest.fixture(scope="module")
def launcher(folder):
    """launch.cc in this process, registered with XLA for the CPU under its own name."""
    loaded = ctypes.CDLL(str(built_launcher(folder)))
    handler = jax.ffi.pycapsule(loaded.rnn_mnist_lstm_cuda)
    jax.ffi.register_ffi_target("rnn_mnist_lstm_cuda", handler, platform="cpu")
    return loaded


@pytest.fixture
def gpu(monkeypatch, tmp_path, folder, launcher):
    """JAX with a GPU, which is the stand-in; a function that gives the driver's calls since."""
    monkeypatch.setenv("DRIVER", str(driver_for(SMALL, folder)))
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    use_devices(monkeypatch, 0)
    monkeypatch.setattr(cuda, "library", SimpleNamespace(load=lambda: launcher))
    monkeypatch.setattr(cuda, "plan", lambda *_: SMALL)
    monkeypatch.setattr(nvrtc, "find_nvrtc", lambda: (None, "13.0"))
    monkeypatch.setattr(cuda, "_register", lambda: None)
    cubin = nvrtc.Compiled(tmp_path.name.encode(), "")  # Another number than in other tests.
    monkeypatch.setattr(nvrtc, "compile_kernel", lambda *_: cubin)

    def calls():
        lines = (tmp_path / "calls").read_text().splitlines()
        (tmp_path / "calls").write_text("")
        return lines

    forget_loaded()
    yield calls
    forget_loaded()


def use_devices(monkeypatch, *numbers):
    devices = [SimpleNamespace(local_hardware_id=number) for number in numbers]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)


def forget_loaded():
    for function in (cuda._device, cuda._load, cuda._load_geometry):
        function.cache_clear()


@pytest.mark.usefixtures("gpu")
def test_every_failing_call_of_the_driver_is_one_line(monkeypatch):
    others = {"cuInit", "cuGetErrorString", "cuCtxGetCurrent", "cuCtxPopCurrent_v2"}
    for name in sorted({*DRIVER} - others):
        monkeypatch.setenv("FAILING", f"{name} ")
        with pytest.raises(ImportError, match=f"^{name}: the stand-in fails$"):
            kernels.load("cuda", 100, 20)
        forget_loaded()
    monkeypatch.setenv("FAILING", "cuModuleLoadData cuGetErrorString ")
    with pytest.raises(ImportError, match=r"^cuModuleLoadData: error 700$"):
        kernels.load("cuda", 100, 20)
    monkeypatch.setenv("FAILING", "cuCtxPopCurrent_v2 ")  # No harm.
    assert kernels.load("cuda", 100, 20) == "sm_90"
    with pytest.raises(ImportError, match=r"^it takes up to 256 hidden units, not 257$"):
        kernels.load("cuda", 100, 257)


def test_a_kernel_is_loaded_once_on_each_device(gpu, monkeypatch, tmp_path):
    once = ["cuCtxPushCurrent_v2", f"cuModuleLoadData {tmp_path.name}"]
    once += ["cuModuleGetFunction forward", "cuModuleGetFunction backward"]
    for name, arrays in (("forward", 11), ("backward", 10)):
        once += [f"cuFuncSetAttribute 8 {SMALL.memory}"]
        once += [f"cuLaunchKernel {name} 1 1 32 {SMALL.memory} 0{' 0' * (arrays + 3)}"]
    once += ["cuCtxSynchronize", "cuCtxPopCurrent_v2"]
    first, second = ([f"cuDeviceGet {n}", f"cuDevicePrimaryCtxRetain {n}"] for n in (0, 1))
    kernels.load("cuda", 100, 20)
    calls = gpu()
    assert calls[calls.index("cuDeviceGetAttribute 97") + 1 :] == first + once
    kernels.load("cuda", 7, 20)
    assert gpu() == []
    use_devices(monkeypatch, 0, 1)
    forget_loaded()
    kernels.load("cuda", 100, 20)
    calls = gpu()
    assert calls[calls.index("cuDeviceGetAttribute 97") + 1 :] == first + second + once


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("sequence", [False, True])
def test_python_launches_it_with_its_gradient(gpu, reverse, sequence):
    """Results and gradients are the scan's, where there is NaN or infinity, too."""
    rng = np.random.default_rng(0)
    shapes = {"weight_ih": (7, 80), "weight_hh": (20, 80), "bias_ih": (80,), "bias_hh": (80,)}
    params = {name: rng.normal(0, 0.3, (3, *shape)) for name, shape in shapes.items()}
    case = params, rng.normal(size=(3, 3, 5, 7)), tuple(rng.normal(0, 0.5, (2, 3, 3, 20)))
    case[1][1, 0, 2, 3], case[1][2, 1, 3, 4] = np.nan, np.inf
    case = jax.tree.map(jnp.float32, case)
    kernels.load("cuda", 3, 20)
    gpu()

    def with_gradient(run):
        def total(*case):
            results = run(*case, reverse=reverse, sequence=sequence)
            return sum((x**2).sum() for x in jax.tree.leaves(results)), results

        grad = jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)
        results = jax.jit(jax.vmap(grad))(*case)
        # An infinite input times a slope that is 0, or nearly 0, is NaN or infinite.
        return jax.tree.map(lambda x: np.where(np.isfinite(x), x, np.nan), results)

    ours = with_gradient(functools.partial(kernels.lstm, platform="cuda"))
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)
    jax.tree.map(close, ours, with_gradient(functools.partial(lstm, kernel="scan")))
    # Blocks, models, threads, bytes, stream; arrays that are not empty; batch, steps, reverse.
    launches = [line for line in gpu() if "Launch" in line]
    place, numbers, hidden = "2 3 32 4608 42", f"3 5 {int(reverse)}", int(sequence)
    assert launches == [
        f"cuLaunchKernel forward {place}{' 1' * 11} {numbers}",
        f"cuLaunchKernel backward {place}{' 1' * 4} {hidden}{' 1' * 5} {numbers}",
    ]
    # Without a gradient, nothing is kept for it; without a sequence, nothing is launched.
    first = jax.tree.map(lambda x: x[0], case)
    jax.block_until_ready(kernels.lstm(*first, platform="cuda", sequence=sequence))
    place = place.replace("2 3", "2 1")
    assert gpu()[1:] == [f"cuLaunchKernel forward {place}{' 1' * 6} 0 0 {hidden} 1 1 3 5 0"]
    one, empty = jax.tree.map(lambda x: x[0], case[0]), jnp.zeros((0, 20))
    hidden, _ = kernels.lstm(one, jnp.zeros((0, 5, 7)), (empty, empty), platform="cuda")
    assert hidden.shape == (0, 5, 20)
    assert gpu() == []


@pytest.mark.usefixtures("gpu")
def test_a_failing_launch_is_one_line(monkeypatch):
    use_devices(monkeypatch, 1)
    kernels.load("cuda", 1, 20)
    numbers = dict.fromkeys(["kernel", "blocks", "threads", "shared", "batch"], np.int32(1))
    numbers |= dict(steps=np.int32(1), number=np.int64(cuda._load(20, 1)[1]), reverse=False)

    def fails_with(text, models=1):
        call = jax.ffi.ffi_call(cuda._TARGET, jax.ShapeDtypeStruct((models,), "float32"))
        arrays = [jnp.zeros(0)] * 9  # With the result, `backward` has 10.
        with pytest.raises(jax.errors.JaxRuntimeError) as error:
            call(*arrays, elements=np.int64(1), **numbers).block_until_ready()
        assert re.fullmatch(f".*the LSTM's kernel: {text}", str(error.value))

    fails_with("more than 65535 models", 65536)
    fails_with("the kernel was not loaded on this device")
    use_devices(monkeypatch, 0)
    forget_loaded()
    kernels.load("cuda", 1, 20)
    for name in ("cuLaunchKernel", "cuCtxGetCurrent"):
        monkeypatch.setenv("FAILING", f"{name} ")
        fails_with(f"{name}: the stand-in fails")


def test_a_driver_that_cannot_be_used_is_one_line(monkeypatch, folder, tmp_path):
    fresh = shutil.copy(built_launcher(folder), tmp_path)  # It has not opened a driver.
    whole = driver_for(SMALL, folder).read_bytes()

    def attribute(file):
        monkeypatch.setenv("DRIVER", str(file))
        number, function = ctypes.c_int(), ctypes.CDLL(str(fresh)).rnn_mnist_lstm_cuda_attribute
        function.restype = ctypes.c_char_p
        return function(0, 16, ctypes.byref(number)) or number.value

    (tmp_path / "text.so").write_text("not a library")
    for name in ("missing.so", "text.so"):
        assert re.fullmatch(rb"/.*/%b: .*" % name.encode(), attribute(tmp_path / name))
    for name in DRIVER:
        driver, symbol = tmp_path / f"without_{name}.so", b"\0%b\0" % name.encode()
        driver.write_bytes(whole.replace(symbol, symbol[::-1]))
        assert attribute(driver) == b"the driver has no " + name.encode()
    monkeypatch.setenv("FAILING", "cuInit ")
    assert attribute(driver_for(SMALL, folder)) == b"cuInit: the stand-in fails"
    monkeypatch.setenv("FAILING", "")
    assert attribute(driver_for(SMALL, folder)) == 132


def test_the_installed_library_opens_the_systems_driver(folder, tmp_path):
    try:
        file = library.load()._name
    except ImportError as error:
        pytest.skip(f"the library is not here: {error}")
    code = "import ctypes, sys; f = ctypes.CDLL(sys.argv[1]).rnn_mnist_lstm_cuda_attribute; "
    code += "f.restype = ctypes.c_char_p; n = ctypes.c_int(); "
    code += "print(f(0, 16, ctypes.byref(n)), n.value)"

    def attribute():
        command = [sys.executable, "-I", "-c", code, file]
        environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path)}
        return subprocess.check_output(command, env=environment, text=True).strip()

    if ctypes.util.find_library("cuda") is None:
        assert re.fullmatch(r"b'libcuda\.so\.1: .*' 0", attribute())
    shutil.copy(driver_for(SMALL, folder), tmp_path / "libcuda.so.1")
    assert attribute() == "None 132"


# ------------------------------------------------------- with sanitizers


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sanitizers", "runtime", "tests"),
    [
        ("address,undefined", "libasan.so", "loop or accurate or row or one_line or python"),
        ("thread", "libtsan.so", "loop and two"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_sanitizers_find_nothing(sanitizers, runtime, tests):
    runtimes = [
        subprocess.check_output(["g++", f"-print-file-name={name}"], text=True).strip()
        for name in (runtime, "libstdc++.so.6")
    ]
    environment = {
        **os.environ,
        "CUDA_ON_HOST_OPTIONS": f"-fsanitize={sanitizers} -fno-sanitize-recover=all",
        "LD_PRELOAD": " ".join(runtimes),
        "ASAN_OPTIONS": "detect_leaks=0",
    }
    options = ["-q", "-n", "0", "-p", "no:cacheprovider", __file__, "-k", tests]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-6000:]
