"""Networks that leave and come in, against PyTorch, ONNX Runtime and JAX alone."""

import dataclasses
import itertools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import SMALL, assert_identical, result_of

from rnn_mnist import (
    Config,
    Data,
    InputError,
    RowLSTM,
    apply,
    export,
    fit,
    from_torch,
    load,
    load_exported,
    read_config,
    to_torch,
    train,
    train_step,
)
from rnn_mnist.interop import to_onnx, to_page, to_stablehlo
from rnn_mnist.runs import fitting, loading, sizes_of, weight_files
from rnn_mnist.runs.loading import load_result
from rnn_mnist.runs.weights import describe, save_weights
from rnn_mnist.training import make_learner, make_model, step_key
from rnn_mnist.training import setup as plan

SLOW = pytest.mark.slow
INNER = "inner.weight_hh_l1"
SHAPES = [
    pytest.param(2, True, "rows"),
    pytest.param(2, True, "windows", marks=SLOW),
    pytest.param(1, False, "rows", marks=SLOW),
    pytest.param(3, False, "columns", marks=SLOW),
    pytest.param(1, True, "pixels", marks=SLOW),
    pytest.param(1, False, "windows", marks=SLOW),
]


def log_probs_of(result, images):
    return np.asarray(apply(result.params, images, model=make_model(result.config, 10)))


@pytest.fixture(scope="module")
def digits():
    return load("mnist", "test")


def classroom(hidden_size=20, num_layers=1, bidirectional=False):
    """The classroom notebook's model class, and one of it."""
    torch = pytest.importorskip("torch")

    class LSTMnist(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm = torch.nn.LSTM(
                28, hidden_size, num_layers, batch_first=True, bidirectional=bidirectional
            )
            self.hidden2digits = torch.nn.Linear(hidden_size * (1 + bidirectional), 10)

        def forward(self, images):
            _, (hidden, _) = self.lstm(images)
            last = torch.cat([hidden[-2], hidden[-1]], 1) if bidirectional else hidden[-1]
            return torch.log_softmax(self.hidden2digits(last), 1)

    torch.manual_seed(1)
    return LSTMnist()


def answers(model, images):
    import torch

    with torch.no_grad():
        return model(torch.from_numpy(images.astype(np.float32) / 255)).numpy()


@pytest.mark.parametrize(
    ("ending", "num_layers", "bidirectional"), [(".safetensors", 1, False), (".pt", 2, True)]
)
def test_the_notebooks_model_loads_what_was_trained_here(
    tmp_path, capsys, digits, undisturbed, ending, num_layers, bidirectional
):
    torch = pytest.importorskip("torch")
    result, source = undisturbed
    if ending == ".pt":
        result, source = result_of(num_layers, bidirectional, hidden_size=8), tmp_path / "it.pt"
        save_weights(source, result)
    path = tmp_path / f"model{ending}"
    assert export.main(["torch", str(source), "-o", str(path)]) == 0
    assert capsys.readouterr().out.startswith(f"{path}: ")
    if ending == ".pt":
        state_dict = torch.load(path, weights_only=True)
    else:
        from safetensors.torch import load_file

        state_dict = load_file(path)
    model = classroom(8, num_layers, bidirectional)
    model.load_state_dict(state_dict)
    ours, theirs = log_probs_of(result, digits.images), answers(model, digits.images)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.argmax(1), theirs.argmax(1))
    back = load_result(path)
    assert_identical(back.params, result.params)
    sizes = sizes_of(state_dict)
    assert sizes == (28, 8, num_layers, bidirectional, 10, 0)
    if ending == ".safetensors":  # It also says what made it.
        assert (back.config, back.classes) == (SMALL, result.classes)


@pytest.mark.slow
def test_pytorch_reads_windows_as_well(tmp_path, digits):
    torch = pytest.importorskip("torch")
    result, path = result_of(2, True, "windows"), tmp_path / "model.pt"
    save_weights(path, result)
    inner = torch.nn.LSTM(16, 3, 2, batch_first=True, bidirectional=True)  # Holds the weights.
    lstm = torch.nn.LSTM(14 * 6, 7, 2, batch_first=True, bidirectional=True)
    both = {"inner": inner, "lstm": lstm, "hidden2digits": torch.nn.Linear(14, 10)}
    model = torch.nn.ModuleDict(both)
    model.load_state_dict(torch.load(path, weights_only=True))
    images = torch.from_numpy(digits.images[:300].astype(np.float32) / 255)
    sweeps = []
    for layer, features in enumerate((16, 6)):
        sweeps.append(torch.nn.LSTM(features, 3, batch_first=True, bidirectional=True))
        weights = {
            name.replace("l1", "l0"): value
            for name, value in inner.state_dict().items()
            if f"_l{layer}" in name
        }
        sweeps[-1].load_state_dict(weights)
    windows = torch.nn.functional.unfold(images[:, None], 4, padding=1, stride=2)  # (B, 16, 196)
    columns = windows.unflatten(2, (14, 14)).permute(0, 3, 2, 1)  # (B, W, T, 16)
    down, _ = sweeps[0](columns.flatten(0, 1))
    rows = down.unflatten(0, (300, 14)).transpose(1, 2)  # (B, T, W, 6)
    along, _ = sweeps[1](rows.flatten(0, 1))
    _, (hidden, _) = lstm(along.reshape(300, 14, 14 * 6))
    logits = model["hidden2digits"](torch.cat([hidden[-2], hidden[-1]], dim=1))
    theirs = torch.log_softmax(logits, dim=1).detach().numpy()
    np.testing.assert_allclose(log_probs_of(result, digits.images[:300]), theirs, atol=1e-5)
    back = load_result(path)
    assert_identical(back.params, result.params)
    assert (back.config.reading, back.config.inner_size) == ("windows", 3)
    begun = loading.sized(Config(init_from=str(path)))
    assert (begun.reading, begun.inner_size, begun.bidirectional) == ("windows", 3, True)


def test_a_network_trained_by_the_notebook_comes_in_and_trains_on(tmp_path, digits):
    torch = pytest.importorskip("torch")
    model = classroom()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    split = load("mnist", "train[:6000]")
    for first in range(0, 6000, 50):
        images = torch.from_numpy(split.images[first : first + 50].astype(np.float32) / 255)
        labels = torch.from_numpy(np.int64(split.labels[first : first + 50]))
        loss = torch.nn.functional.nll_loss(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    torch.save(model.state_dict(), tmp_path / "model.pt")
    result = load_result(tmp_path / "model.pt")
    assert result.config == dataclasses.replace(Config(), hidden_size=20)
    theirs, ours = answers(model, digits.images), log_probs_of(result, digits.images)
    np.testing.assert_array_equal(ours.argmax(1), theirs.argmax(1))

    data = Data(train="train[:200]", test="test")
    config = Config(epochs=1, data=data, init_from=str(tmp_path / "model.pt"))
    trained = fit(config)
    assert trained.history[0].test_correct == (theirs.argmax(1) == digits.labels).sum()
    assert trained.history[0].test_correct > 2000
    assert trained.history[1].test_loss != trained.history[0].test_loss
    assert loading.sized(dataclasses.replace(config, hidden_size=20)).hidden_size == 20


def test_what_is_said_of_weights_was_measured_on_them(tmp_path, monkeypatch, undisturbed):
    """A run stopped within its first epoch was tested before training only."""
    result, _ = undisturbed
    folder, path, calls = tmp_path / "run", tmp_path / "model.safetensors", itertools.count()
    with monkeypatch.context() as patch:
        patch.setattr(fitting, "compile_programs", lambda p, **_: plan.compile_programs(p, most=10))
        patch.setattr(fitting.parallel, "any_process", lambda _: next(calls) == 3)
        with pytest.raises(KeyboardInterrupt, match="stopped and saved at step 18"):
            fit(SMALL, folder=folder)

    stopped = load_result(folder)
    save_weights(path, stopped)
    for again in (stopped, load_result(path)):
        assert [epoch.step for epoch in again.history] == [0]
        assert again.tested is None
        assert "These weights, after 18\xa0steps, were not tested." in to_page(again)
        assert "It is right on" not in to_page(again)
        said = {prop.key: prop.value for prop in to_onnx(again).metadata_props}
        assert (said["test_accuracy"], said["step"]) == ("not measured", "18")

    save_weights(path, result)
    for again in (result, load_result(path)):
        accuracy = result.history[-1].test_accuracy
        assert f"right on {100 * accuracy:.2f}\xa0% of 300\xa0test" in to_page(again)
        said = {prop.key: prop.value for prop in to_onnx(again).metadata_props}
        assert float(said["test_accuracy"]) == accuracy
    described = {**describe(result), "step": "-1"}
    weight_files.write_weights(path, to_torch(result.params), described)
    with pytest.raises(InputError, match="its step is -1"):
        load_result(path)


def test_beginning_with_a_run_begins_where_it_ended(undisturbed):
    result, folder = undisturbed
    config = dataclasses.replace(SMALL, epochs=1, init_from=str(folder))
    begun = fit(config)
    assert begun.history[0].test_correct == result.history[-1].test_correct
    assert int(begun.state.step) == 63


def test_sizes_are_those_of_the_weights_unless_they_are_set(tmp_path, undisturbed, capfd):
    """By the function and by the command, whose flags and file may set a size to its default."""
    result, _ = undisturbed
    path, kept = tmp_path / "model.safetensors", tmp_path / "run"
    save_weights(path, result)
    config = dataclasses.replace(SMALL, epochs=1, hidden_size=20, init_from=str(path))
    begun = fit(config, folder=kept)
    assert begun.config == dataclasses.replace(config, hidden_size=8)
    assert begun.history[0].test_correct == result.history[-1].test_correct
    with pytest.raises(
        InputError, match=r"hidden_size: is 9, but 8 in .*\.safetensors; the run begins"
    ):
        fit(dataclasses.replace(config, hidden_size=9))
    with pytest.raises(InputError, match="reading: is 'pixels', but 'rows' in"):
        fit(dataclasses.replace(config, reading="pixels"))
    head = {"hidden2digits.weight": np.zeros((9, 8), "f4"), "hidden2digits.bias": np.zeros(9, "f4")}
    nine = tmp_path / "nine.safetensors"
    weight_files.write_weights(nine, to_torch(result.params) | head, {})
    with pytest.raises(InputError, match=r"init_from: the weights of .* have other classes or"):
        fit(dataclasses.replace(config, init_from=str(nine)))

    (tmp_path / "twenty.toml").write_text(f"hidden_size = 20\ninit_from = '{path}'\n")
    for flags in ([tmp_path / "twenty.toml"], ["--init-from", path, "--hidden_size=20"]):
        assert train.main([*map(str, flags), "--run", str(tmp_path / "other")]) == 2
        said = capfd.readouterr().err
        assert said.startswith(f"error: hidden_size: is 20, but 8 in {path}; the run begins with")
        assert said.count("\n") == 1

    # What such a run writes runs again, and it goes on without the weights.
    assert read_config(kept / "config.toml") == begun.config
    assert loading.sized(begun.config, named=vars(begun.config)) == begun.config
    path.unlink()
    for same in (config, begun.config):
        assert_identical(fit(same, folder=kept).state, begun.state)
    with pytest.raises(InputError, match="hidden_size is 8 there and 9 here"):
        fit(dataclasses.replace(config, hidden_size=9), folder=kept)
    given = ["--init-from", str(path), "--hidden-size", "20", "--run", str(kept)]
    assert train.main(given) == 2
    assert "hidden_size is 8 there and 20 here" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("there", "here", "named", "taken"),
    [
        ("rows", "rows", False, "rows"),
        ("columns", "rows", False, "columns"),
        ("columns", "rows", True, None),
        ("rows", "columns", True, "columns"),
        ("pixels", "permuted", False, "permuted"),
        ("rows", "windows", True, None),
        ("windows", "rows", False, "windows"),
        ("windows", "columns", False, None),
    ],
)
def test_a_network_may_go_on_in_another_order_of_as_many_values(
    tmp_path, there, here, named, taken
):
    path = tmp_path / "model.safetensors"
    save_weights(path, result_of(reading=there))
    config = Config(init_from=str(path), reading=here)
    if taken is None:
        with pytest.raises(InputError, match=f"reading: is '{here}', but '{there}' in"):
            loading.sized(config, named={"reading"} if named else ())
        return
    sized = loading.sized(config, named={"reading"} if named else ())
    assert sized.reading == taken
    assert sized.hidden_size == 7
    assert sized.inner_size == (3 if taken == "windows" else 16)
    assert loading.sized(sized) == loading.sized(sized, named=vars(sized)) == sized


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("lstm.bias_hh_l0"), "lstm.bias_hh_l0 is missing"),
        (lambda s: s.update(extra=np.zeros(3, np.float32)), "extra is unknown"),
        (
            lambda s: s.update({"lstm.extra": np.zeros(3, np.float32)}),
            "not the weights of such a network: lstm.extra is unknown",
        ),
        (
            lambda s: s.update(
                to_torch(result_of(reading="windows").params)
                | {"lstm.weight_ih_l0": np.zeros((28, 85), np.float32)}
            ),
            "lstm.weight_ih_l0 is 28 x 85, not 28 x 84",
        ),
        (
            lambda s: s.update({"hidden2digits.weight": np.zeros((10, 8), np.float32)}),
            "hidden2digits.weight is 10 x 8, not 10 x 7",
        ),
        (
            lambda s: s.update({"lstm.bias_ih_l0": np.zeros(28, np.float64)}),
            "lstm.bias_ih_l0 is float64, not float32",
        ),
        (lambda s: s.clear(), "lstm.weight_ih_l0 is missing"),
        (
            lambda s: s.update(to_torch(result_of(reading="windows").params)) or s.pop(INNER),
            f"not the weights of such a network: {INNER} is missing",
        ),
    ],
)
def test_other_tensors_are_refused_in_one_line(tmp_path, capsys, change, message):
    state_dict = to_torch(result_of().params)
    change(state_dict)
    with pytest.raises(InputError, match=message.replace("(", "\\(")):
        from_torch(state_dict)
    if not state_dict:  # No version of the file format's library has to write that.
        return
    weight_files.write_weights(tmp_path / "odd.safetensors", state_dict, {})
    code = export.main(["onnx", str(tmp_path / "odd.safetensors"), "-o", str(tmp_path / "o.onnx")])
    said = capsys.readouterr().err
    assert (code, said.count("\n")) == (2, 1)
    assert message in said
    assert not (tmp_path / "o.onnx").exists()


def test_files_that_are_no_weights_are_refused(tmp_path):
    (tmp_path / "a.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{broken!")
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_result(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match="cannot be read: No such file"):
        load_result(tmp_path / "b.safetensors")
    with pytest.raises(InputError, match="no such run; name a run's folder, a sweep's folder"):
        load_result(tmp_path / "c")
    torch = pytest.importorskip("torch")
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")  # Could run code.
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_result(tmp_path / "whole.pt")
    torch.save([torch.zeros(3)], tmp_path / "list.pt")
    with pytest.raises(InputError, match="not a state dict"):
        load_result(tmp_path / "list.pt")


def test_what_a_format_cannot_express_is_refused(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(InputError, match="would be loaded as a network that reads rows"):
        save_weights(tmp_path / "a.pt", result_of(reading="columns"))
    assert not (tmp_path / "a.pt").exists()
    save_weights(tmp_path / "a.safetensors", result_of(reading="columns"))
    assert load_result(tmp_path / "a.safetensors").config.reading == "columns"
    plain = result_of()
    half = plain._replace(config=dataclasses.replace(plain.config, precision="bfloat16"))
    with pytest.raises(InputError, match="onnx: its LSTM cannot compute in bfloat16"):
        to_onnx(half)


@pytest.mark.parametrize(("num_layers", "bidirectional", "reading"), SHAPES)
def test_onnx_runtime_says_the_same(digits, num_layers, bidirectional, reading):
    import onnx
    import onnxruntime

    result = result_of(num_layers, bidirectional, reading)
    model = to_onnx(result)
    onnx.checker.check_model(model, full_check=True)
    inner = reading == "windows"
    assert [node.op_type for node in model.graph.node].count("LSTM") == num_layers + 2 * inner
    assert len(model.graph.node) < 15 + 9 * inner
    session = onnxruntime.InferenceSession(model.SerializeToString())
    count = 10_000 if reading == "rows" and num_layers == 1 else 300
    for images in (digits.images[:count], digits.images[:1]):
        scaled = images.astype(np.float32) / 255
        (theirs,) = session.run(None, {"images": scaled})
        ours = log_probs_of(result, images)
        np.testing.assert_allclose(theirs, ours, atol=1e-5)
        np.testing.assert_array_equal(theirs.argmax(1), ours.argmax(1))
    said = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(said["classes"]) == list(result.classes)
    assert f'reading = "{reading}"' in said["config"]


@pytest.mark.slow
@pytest.mark.parametrize(("num_layers", "bidirectional", "reading"), SHAPES[:4])
def test_stablehlo_gives_the_same(tmp_path, digits, num_layers, bidirectional, reading):
    result = result_of(num_layers, bidirectional, reading)
    path = tmp_path / "model.zip"
    path.write_bytes(to_stablehlo(result))
    exported = load_exported(path)
    for count in (300, 1):
        images = digits.images[:count].astype(np.float32) / 255
        ours = log_probs_of(result, images)
        np.testing.assert_allclose(exported.predict(images), ours, atol=1e-5)
    images, labels = digits.images[:20].astype(np.float32) / 255, digits.labels[:20]
    whole = exported.predict(np.int64(digits.images[:20]))
    np.testing.assert_allclose(whole, exported.predict(images), atol=1e-6)
    with pytest.raises(ValueError, match="images: integers must be from 0 to 255 and floats from"):
        exported.predict(255.5 * images)  # Whole numbers up to 255 would be grey levels.
    for wrong in ((images, labels - 10, 5), (images, labels, -1), (images, labels, 2**32)):
        with pytest.raises(ValueError, match=r"must be from 0 to (9|4294967295), not "):
            exported.train_step(exported.leaves, *wrong)
    leaves, state = exported.leaves, result.state
    seeds = 2**32 - 1, np.int64(2**32 - 1), np.uint32(2**32 - 1)
    (_, wanted), *others = (exported.train_step(leaves, images, labels, seed) for seed in seeds)
    assert all(loss == wanted for _, loss in others)
    learner = make_learner(result.config, num_classes=10, total_steps=1)
    for _ in range(3):
        leaves, loss = exported.train_step(leaves, images, labels, 5)
        state, metrics = train_step(state, images, labels, key=step_key(5), **learner._asdict())
        np.testing.assert_allclose(loss, metrics.loss / 20, rtol=1e-4)
    for ours, theirs in zip(jax.tree.leaves(state), leaves, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=3e-4)
    assert exported.about["classes"] == list("0123456789")
    assert exported.about["platforms"] == ["cpu", "cuda", "tpu"]


@pytest.mark.slow
def test_stablehlo_says_the_accuracy_of_its_weights(tmp_path, undisturbed):
    result, _ = undisturbed
    beyond = result._replace(state=result.state._replace(step=result.state.step + 1))
    for one, accuracy in ((result, result.history[-1].test_accuracy), (beyond, None)):
        (tmp_path / "model.zip").write_bytes(to_stablehlo(one))
        assert load_exported(tmp_path / "model.zip").about["test_accuracy"] == accuracy


@pytest.mark.slow
def test_what_was_exported_runs_without_flax(tmp_path, undisturbed):
    result, folder = undisturbed
    assert export.main(["stablehlo", str(folder), "-o", str(tmp_path / "model.zip")]) == 0
    images = load("mnist", "test[:7]").images.astype(np.float32) / 255
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, numpy as np, rnn_mnist\n"
        f"exported = rnn_mnist.load_exported({str(tmp_path / 'model.zip')!r})\n"
        f"images = np.load({str(tmp_path / 'images.npy')!r})\n"
        "np.save(sys.argv[1], exported.predict(images))\n"
        "assert not {'flax', 'optax', 'orbax'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path / "said.npy"], check=True)
    ours = apply(result.params, images, model=RowLSTM(8))
    np.testing.assert_allclose(np.load(tmp_path / "said.npy"), ours, atol=1e-5)
    (tmp_path / "odd.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="not a StableHLO file of this package"):
        load_exported(tmp_path / "odd.zip")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["torch", "runs/none", "-o", "a.safetensors"], "runs/none: no such run"),
        (
            ["onnx", "runs/none", "-o", "a.pt"],
            "--output: onnx is written as a file that ends in .on",
        ),
        (
            ["tflite", "runs/none", "-o", "a.x"],
            "FORMAT: 'tflite' is not one of torch, onnx, stablehlo, page",
        ),
        (["torch", "runs/none"], "the following arguments are required: --output/-o"),
        (["torch", "runs/none", "-o", "a.pt", "--quick"], "--quick: unknown flag"),
    ],
)
def test_bad_commands_are_one_line(tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert export.main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert message in said
