"""Weights from PyTorch programs that are written as tutorials write them, against PyTorch."""

import importlib.util
import json
import re

import numpy as np
import pytest
from conftest import assert_identical

from rnn_mnist import InputError, export, from_torch, load, plot, predict
from rnn_mnist.inference import beliefs
from rnn_mnist.runs import ReadAs, find_network, load_result
from rnn_mnist.runs.state_dict import rename
from rnn_mnist.runs.weights import save_weights

torch = pytest.importorskip("torch")
MNIST = ReadAs(0.1307, 0.3081)


class Classifier(torch.nn.Module):
    """The last output of an LSTM named `rnn`, into a linear layer named `out`."""

    def __init__(self, hidden=64):
        super().__init__()
        self.rnn = torch.nn.LSTM(28, hidden, batch_first=True)
        self.out = torch.nn.Linear(hidden, 10)

    def forward(self, x):  # noqa: D102
        outputs, _ = self.rnn(x, None)
        return self.out(outputs[:, -1, :])


class StackedLSTM(torch.nn.Module):
    """Two layers over normalised images, with initial states that are given; the last state."""

    def __init__(self, hidden=64, layers=2):
        super().__init__()
        self.hidden, self.layers = hidden, layers
        self.LSTM = torch.nn.LSTM(28, hidden, layers, batch_first=True, dropout=0.2)
        self.fc = torch.nn.Linear(hidden, 10)

    def forward(self, x):  # noqa: D102
        h0 = torch.zeros(self.layers, x.size(0), self.hidden)
        _, (hn, _) = self.LSTM((x - 0.1307) / 0.3081, (h0, torch.zeros_like(h0)))
        return torch.nn.functional.log_softmax(self.fc(hn[-1]), dim=1)


class BiRNN(torch.nn.Module):
    """Both directions, whose output at the last step goes to the linear layer."""

    def __init__(self, hidden=64, layers=1):
        super().__init__()
        self.encoder = torch.nn.Module()
        self.encoder.lstm = torch.nn.LSTM(28, hidden, layers, batch_first=True, bidirectional=True)
        self.classifier = torch.nn.Sequential(torch.nn.Linear(2 * hidden, 10))

    def forward(self, x):  # noqa: D102
        out, _ = self.encoder.lstm(x)
        return self.classifier(out[:, -1])


class SequenceModel(torch.nn.Module):
    """The parts of a network in a module named `model`."""

    def __init__(self, hidden=64):
        super().__init__()
        self.model = torch.nn.ModuleDict(
            {"lstm": torch.nn.LSTM(28, hidden), "linear": torch.nn.Linear(hidden, 10)}
        )

    def forward(self, x):  # noqa: D102
        out, _ = self.model["lstm"](x.permute(1, 0, 2))
        return self.model["linear"](out[-1])


def checkpoint(model, name, prefix=""):
    """What training programs save beside the state dict, which has a prefix."""
    optimizer = torch.optim.Adam(model.parameters(), lr=0.0)
    torch.nn.functional.mse_loss(model(torch.rand(2, 28, 28)), torch.rand(2, 10)).backward()
    optimizer.step()
    tensors = {f"{prefix}{key}": value for key, value in model.state_dict().items()}
    beside = {"epoch": 3, "loss": 0.25, "best": None, "args": {"lr": 1e-3, "betas": [0.9, 0.999]}}
    return beside | {"optimizer": optimizer.state_dict(), name: tensors}


def plain(model, dtype=torch.float32):
    return model.to(dtype).state_dict()


# The class, the saved object, the file, the way to read it, and the line that is printed.
TUTORIALS = {
    "rnn": (
        Classifier,
        lambda model: checkpoint(model, "state_dict", "module."),
        "model.PTH",
        ReadAs(),
        "module.rnn is read as the LSTM, and module.out as the linear layer",
    ),
    "stacked": (
        StackedLSTM,
        lambda model: checkpoint(model, "model_state_dict"),
        "last.ckpt",
        MNIST,
        "LSTM is read as the LSTM, and fc as the linear layer",
    ),
    "both": (
        BiRNN,
        lambda model: {"model": checkpoint(model, "net", "_orig_mod.")["net"]},
        "birnn.pkl",
        ReadAs(last_output=True),
        "_orig_mod.encoder.lstm is read as the LSTM, and _orig_mod.classifier.0 as the linear",
    ),
    "half": (
        SequenceModel,
        lambda model: plain(model, torch.bfloat16),
        "pytorch_model.bin",
        ReadAs(),
        "model.lstm is read as the LSTM, and model.linear as the linear layer",
    ),
}


@pytest.fixture(scope="module")
def digits():
    return load("mnist", "test[:1000]")


def made(tutorial, seen=lambda images: images, **sizes):
    """A network with a random LSTM and a linear layer fitted to training digits as it sees them.

    So it is trained in no time: a reservoir with a readout by ridge regression.
    """
    torch.manual_seed(1)
    model = tutorial(**sizes).eval()
    (head,) = (part for part in model.modules() if isinstance(part, torch.nn.Linear))
    states = []
    hook = head.register_forward_pre_hook(lambda _, given: states.append(given[0]))
    digits = load("mnist", "train[:3000]")
    with torch.no_grad():
        for name, weight in model.named_parameters():
            weight *= 2
            if "bias_hh" in name:  # A forget gate that is open remembers more rows.
                weight[len(weight) // 4 : len(weight) // 2] += 1
        model(seen(as_torch(digits.images)))
        hook.remove()
        known = torch.cat([states[0], torch.ones(3000, 1)], dim=1).double()
        wanted = torch.eye(10).double()[torch.from_numpy(np.int64(digits.labels))]
        # Some states hardly change, so a ridge keeps the equations well conditioned.
        ridge = 0.01 * torch.eye(known.shape[1])
        fitted = 6 * torch.linalg.solve(known.T @ known + ridge, known.T @ wanted).T
        head.weight.copy_(fitted[:, :-1])
        head.bias.copy_(fitted[:, -1])
    return model


def as_torch(images):
    return torch.from_numpy(images.astype(np.float32) / 255)


def probabilities(model, images):
    """What PyTorch's module computes, (N, 10)."""
    with torch.no_grad():
        answers = model(as_torch(images))
    return torch.softmax(answers, 1).numpy()


def right(answers, digits):
    return (answers.argmax(1) == digits.labels).mean()


@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorials_networks_come_in_and_answer_as_in_pytorch(name, tmp_path, digits):
    tutorial, saved, file, how, said = TUTORIALS[name]
    model = made(tutorial)
    torch.save(saved(model), tmp_path / file)
    found = find_network(tmp_path / file, how)
    assert found.said.startswith(said)
    ours = found.result.predict(digits.images)
    theirs = probabilities(model.float(), digits.images)
    np.testing.assert_allclose(ours, theirs, atol=2e-5)
    assert abs(right(ours, digits) - right(theirs, digits)) <= 0.001  # One digit may be a draw.
    assert right(ours, digits) > 0.5


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_halves_are_read_from_safetensors_too(dtype, tmp_path, digits):
    from safetensors.torch import save_file

    model = made(Classifier)
    save_file(plain(model, dtype), tmp_path / "model.SafeTensors", metadata={"format": "pt"})
    ours = load_result(tmp_path / "model.SafeTensors").predict(digits.images[:100])
    np.testing.assert_allclose(ours, probabilities(model.float(), digits.images[:100]), atol=1e-5)


@pytest.mark.parametrize(
    ("layers", "normalised"), [(1, True), (2, False), pytest.param(3, True, marks=pytest.mark.slow)]
)
def test_the_last_output_of_both_directions_is_read_as_pytorch_gives_it(
    layers, normalised, tmp_path, digits
):
    """Also after each beginning of an image, which PyTorch reads as a shorter image."""
    model, images = made(BiRNN, hidden=16, layers=layers), digits.images[:100]
    torch.save(model.state_dict(), tmp_path / "model.pt")
    how = ReadAs(*(0.5, 0.25) if normalised else (0, 1), last_output=True)
    result = load_result(tmp_path / "model.pt", how)
    scaled = (as_torch(images) - how.mean) / how.std
    with torch.no_grad():
        theirs = torch.softmax(model(scaled), 1).numpy()
        beginnings = [model(scaled[:1, :step]) for step in range(1, 29)]
        believed = torch.softmax(torch.cat(beginnings), 1).numpy()
    np.testing.assert_allclose(result.predict(images), theirs, atol=2e-5)
    np.testing.assert_allclose(beliefs(result, images[0]), believed, atol=2e-5)
    assert result.config.hidden_size == 32
    assert result.config.bidirectional == (layers > 1)
    # What was folded in is written out, and read again as it is.
    save_weights(tmp_path / "ours.safetensors", result)
    assert_identical(load_result(tmp_path / "ours.safetensors").params, result.params)
    assert np.abs(load_result(tmp_path / "model.pt").predict(images) - theirs).max() > 0.05


def test_names_are_found_in_python_too():
    model = made(Classifier)
    params = from_torch({f"module.{name}": value for name, value in model.state_dict().items()})
    np.testing.assert_array_equal(params["hidden2digits"]["bias"], model.out.bias.detach())
    np.testing.assert_array_equal(params["lstm_l0"]["weight_hh"].T, model.rnn.weight_hh_l0.detach())
    averaged = {"n_averaged": torch.tensor(3), **model.state_dict()}  # As of AveragedModel.
    assert_identical(from_torch(averaged), params)
    # The two LSTMs of windows, which have this package's names.
    both = [f"{name}.weight_{kind}_l0" for name in ("inner", "lstm") for kind in ("ih", "hh")]
    ours = dict.fromkeys([*both, "hidden2digits.weight"], np.zeros((4, 4), np.float32))
    wrapped = rename({f"module.model.{name}": value for name, value in ours.items()})
    assert (wrapped.state_dict.keys(), wrapped.said) == (ours.keys(), "")
    assert rename(ours).said == ""


# ----------------------------------------------------------------------- networks that misread


def normalised(images):
    return (images - 0.1307) / 0.3081


@pytest.mark.parametrize(
    ("tutorial", "seen", "remedy"),
    [
        (Classifier, normalised, "--mean 0.1307 --std 0.3081"),
        (Classifier, lambda images: images.transpose(1, 2), "--reading columns"),
        (BiRNN, lambda images: images, "--last-output"),
        (BiRNN, normalised, "--mean 0.1307 --std 0.3081 --last-output"),
    ],
)
def test_weights_that_misread_digits_name_the_remedy(
    tutorial, seen, remedy, tmp_path, monkeypatch, capsys, digits
):
    monkeypatch.chdir(tmp_path)
    model = made(tutorial, seen)
    torch.save(model.state_dict(), "model.pt")
    np.save("digits.npy", digits.images[:20])
    assert predict.main(["model.pt", "digits.npy"]) == 0
    out, err = capsys.readouterr()
    assert re.match(
        r"model.pt: \S+ is read as the LSTM, and \S+ as the linear layer(; --last|\n)", out
    )
    share = right(probabilities(lambda x: model(seen(x)), digits.images), digits)
    (doubt,) = err.splitlines()
    found = re.fullmatch(
        rf"model.pt: reads only ([\d.]+) % of 1,000 test digits rightly; "
        rf"about (\d+) % with {remedy}(, about \d+ % with .*)?",
        doubt,
    )
    assert float(found[1]) < 50
    assert abs(float(found[2]) - 100 * share) < 6

    assert predict.main(["model.pt", "digits.npy", "--json", *remedy.split()]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    answers = np.array([[*a["probabilities"].values()] for a in json.loads(out)["answers"]])
    theirs = probabilities(lambda x: model(seen(x)), digits.images[:20])
    np.testing.assert_allclose(answers, theirs, atol=3e-5)


# ---------------------------------------------------------------------------- what is refused


def state(**changes):
    """A state dict with names of a tutorial's network, and changes."""
    tensors = {"rnn.weight_ih_l0": (8, 28), "rnn.weight_hh_l0": (8, 2), "rnn.bias_ih_l0": (8,)}
    tensors |= {"rnn.bias_hh_l0": (8,), "fc.weight": (10, 2), "fc.bias": (10,)}
    tensors |= {name.replace("__", "."): shape for name, shape in changes.items()}
    return {name: torch.zeros(shape) for name, shape in tensors.items() if shape is not None}


@pytest.mark.parametrize(
    ("saved", "message"),
    [
        (
            state(decoder__weight_ih_l0=(16, 2), decoder__weight_hh_l0=(16, 4)),
            "it holds 2 LSTMs: rnn (28 -> 2), decoder (2 -> 4); only networks with one LSTM and",
        ),
        (
            state(fc__weight=None, a__0__weight=(20, 2), a__2__weight=(10, 20)),
            "it holds 2 linear layers: a.0 (2 -> 20), a.2 (20 -> 10); only networks with one",
        ),
        (state(rnn__weight_ih_l0=(6, 28), rnn__weight_hh_l0=(6, 2)), "rnn is a GRU; only LSTMs"),
        (state(rnn__weight_ih_l0=(2, 28), rnn__weight_hh_l0=(2, 2)), "rnn is a plain RNN; only"),
        (state(bn__weight=(2,)), "not the weights of such a network: bn.weight is unknown (rnn is"),
        (state(fc__bias=None), "hidden2digits.bias is missing (rnn is read as the LSTM, and fc as"),
        (state(rnn__weight_ih_l0=(8, 14)), "the network reads 14 values in each step and knows 10"),
        ({"conv.weight": torch.zeros(3, 3)}, "lstm.weight_ih_l0 is missing"),
        ({"model": state(), "ema": state()}, "it holds several state dicts, model, ema; save one"),
        ({"a": {"b": {"c": {"d": state()}}}}, "not a state dict; save model.state_dict() of the"),
        ({"epoch": 3, "model": state(), "score": np.float64(0.5)}, "it asks for numpy"),
        (
            {"epoch": 3, "model": torch.nn.Linear(2, 2)},
            "it asks for torch.nn.modules.linear.Linear",
        ),
    ],
)
def test_other_networks_are_refused_in_one_line(saved, message, tmp_path):
    torch.save(saved, tmp_path / "model.ckpt")
    with pytest.raises(InputError, match=re.escape(message)) as refused:
        load_result(tmp_path / "model.ckpt")
    assert str(refused.value).startswith(f"{tmp_path / 'model.ckpt'}: ")
    assert len(str(refused.value)) < 400


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--std", "0"], "model.pt: std: must be from 1e-6 to 1e6, not 0.0"),
        (["--mean", "nan"], "model.pt: mean: must be from -1e6 to 1e6, not nan"),
        (["--mean", "a"], "--mean: invalid float value: 'a'"),
        (["--last-output"], "model.pt: last_output: only changes networks of both directions"),
        (["--reading", "pixels"], "model.pt: reading: this network reads 28 values in each step"),
        (["--reading", "row"], "--reading: 'row' is not one of rows, columns, pixels; did you"),
    ],
)
def test_odd_flags_are_refused_in_one_line(flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    torch.save(state(), "model.pt")
    assert plot.main(["rows", "model.pt", *flags]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {message}")
    assert said.count("\n") == 1


@pytest.mark.parametrize("source", ["strong", "run", "ours.safetensors", None])
def test_networks_that_tell_how_they_read_take_no_such_flags(
    source, tmp_path, monkeypatch, capsys, undisturbed
):
    monkeypatch.chdir(tmp_path)
    result, folder = undisturbed
    save_weights("ours.safetensors", result)
    source = str(folder) if source == "run" else source
    words = [word for word in ("torch", source, "-o", "out.safetensors", "--mean=0.1") if word]
    assert export.main(words) == 2
    said = capsys.readouterr().err
    start = f"error: {source}: mean, std, last_output and reading are for files of weights from"
    start = start if source else "error: --mean, --std, --last-output and --reading: only for files"
    assert said.startswith(start)
    assert not (tmp_path / "out.safetensors").exists()


def test_an_import_is_written_as_what_it_computes(tmp_path, monkeypatch, capsys, digits):
    """PyTorch's class of one direction and this package's names load it and say the same."""
    from safetensors.torch import load_file

    monkeypatch.chdir(tmp_path)
    model = made(BiRNN, normalised)
    torch.save(model.state_dict(), "model.pth")
    how = ["--mean", "0.1307", "--std", "0.3081", "--last-output"]
    assert export.main(["torch", "model.pth", *how, "-o", "ours.safetensors"]) == 0
    assert "encoder.lstm is read as the LSTM, and classifier.0" in capsys.readouterr().out
    tensors = load_file("ours.safetensors")
    classroom = torch.nn.LSTM(28, 128, batch_first=True), torch.nn.Linear(128, 10)
    for part, name in zip(classroom, ("lstm.", "hidden2digits."), strict=True):
        own = {key.removeprefix(name): value for key, value in tensors.items() if name in key}
        part.load_state_dict(own)
    lstm, head = classroom
    theirs = probabilities(lambda x: head(lstm(x)[1][0][-1]), digits.images)
    wanted = probabilities(lambda x: model(normalised(x)), digits.images)
    np.testing.assert_allclose(theirs, wanted, atol=3e-5)


# ----------------------------------------------------------- refused before anything is predicted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("legacy.ckpt 2.npy", "legacy.ckpt: cannot be read as weights: no zip archive, as PyTorch"),
        ("2.npy LEGACY.PKL", "LEGACY.PKL: cannot be read as weights: no zip archive, as PyTorch"),
        ("2.npy cut.bin", "cut.bin: cannot be read as weights: "),
        ("2.npy missing.PTH", "missing.PTH: cannot be read: No such file or directory"),
        ("net.onnx 2.npy", "net.onnx: networks are read from files of weights, which end in .s"),
        (
            "2.npy folder.ckpt",
            "folder.ckpt: holds no config.toml and no sweep.csv, so it is neither",
        ),
        ("2.npy broken", "broken/config.toml: not valid TOML: "),
        ("2.npy runs/typo", "runs/typo: there is no such run and no such picture"),
        ("runs/typo 2.npy strong", "runs/typo: there is no such run and no such picture"),
        ("2.npy strnog", "strnog: there is no such run and no such picture"),
    ],
)
def test_a_network_that_cannot_be_read_is_refused_before_any_answer(
    words, message, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    np.save("2.npy", np.zeros((28, 28), np.uint8))
    for name in ("legacy.ckpt", "LEGACY.PKL"):
        torch.save(state(), name, _use_new_zipfile_serialization=False)
    torch.save(state(), "whole.bin")
    content = (tmp_path / "whole.bin").read_bytes()
    (tmp_path / "cut.bin").write_bytes(content[: len(content) // 2])
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08")
    for folder in ("broken", "folder.ckpt"):
        (tmp_path / folder).mkdir()
    (tmp_path / "broken" / "config.toml").write_text("epochs = ")
    assert predict.main(words.split()) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


@pytest.mark.parametrize("ending", [".ckpt", ".BIN", ".pkl"])
def test_without_pytorch_one_line_says_so(ending, tmp_path, monkeypatch):
    real = importlib.util.find_spec
    found = lambda name, *rest: None if name == "torch" else real(name, *rest)  # noqa: E731
    torch.save(state(), tmp_path / f"model{ending}")
    monkeypatch.setattr(importlib.util, "find_spec", found)
    with pytest.raises(InputError, match=rf"only PyTorch reads and writes {ending.lower()}; ins"):
        load_result(tmp_path / f"model{ending}")
