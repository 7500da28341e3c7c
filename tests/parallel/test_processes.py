"""Several processes that train one run together: two real ones on this machine."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time

import pytest
from conftest import assert_identical, without_seconds

from rnn_mnist import load_pretrained, load_run
from rnn_mnist.parallel import rendezvous
from rnn_mnist.runs.weights import save_weights

COMMAND = [sys.executable, "-m", "rnn_mnist.train"]
# 90 images a batch are shared out evenly; the 30 of the last one are not.
FLAGS = ["--epochs", "2", "--batch-size", "90", "--data.train", "train[:9030]"]


def start(folder, *flags, each=((), ())):
    """Start process 0 and process 1."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        meet = ["--coordinator", f"localhost:{free.getsockname()[1]}", "--processes", "2"]
    common = [*COMMAND, "--distributed", *meet, "--devices", "1", *FLAGS, *flags]
    return [
        subprocess.Popen(
            [*common, "--process-id", str(number), *own],
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for number, own in enumerate(each)
    ]  # fmt: skip


def start_under_slurm(folder):
    """The same as SLURM starts them: all alike, told apart by the environment."""
    job = next(number for number in range(4096) if is_free(65535 - 4095 + number))
    common = {"SLURM_JOB_ID": job, "SLURM_STEP_NODELIST": "localhost", "SLURM_NTASKS": 2}
    return [
        subprocess.Popen(
            [*COMMAND, "--distributed", "--devices", "1", *FLAGS],
            env={**os.environ, **{key: str(value) for key, value in settings.items()}},
            cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for settings in (
            common | {"SLURM_PROCID": number, "SLURM_LOCALID": number} for number in range(2)
        )
    ]  # fmt: skip


PROCESS = """
import importlib.util, sys
from rnn_mnist import InputError
file, place, processes, number, wait = sys.argv[1:]
# From its file, because the folder's __init__ imports JAX, which takes seconds.
spec = importlib.util.spec_from_file_location("rendezvous", file)
rendezvous = importlib.util.module_from_spec(spec)
spec.loader.exec_module(rendezvous)
print("started", flush=True)
sys.stdin.readline()
try:
    link = rendezvous.meet(place, int(processes), int(number), wait=float(wait))
except InputError as error:
    sys.exit(str(error))
print("met", flush=True)
sys.stdin.read()
rendezvous.leave(link)
"""


@contextlib.contextmanager
def met(numbers, *, processes=3, wait=60):
    """Processes that meet without JAX, and then wait until their standard input is closed."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        place = f"localhost:{free.getsockname()[1]}"
    command, started = [sys.executable, "-c", PROCESS, rendezvous.__file__], []
    try:
        for number in numbers:
            process = subprocess.Popen(
                [*command, place, str(processes), str(number), str(wait)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            )  # fmt: skip
            started.append(process)
        for process in started:
            assert process.stdout.readline() == "started\n"
        for process in started:
            print("go", file=process.stdin, flush=True)
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_ends_is_named_by_the_others(victim):
    with met(range(3)) as processes:
        assert [process.stdout.readline() for process in processes] == ["met\n"] * 3
        processes[victim].kill()
        for other in {*range(3)} - {victim}:
            assert processes[other].wait(60) == 1
            assert processes[other].stderr.read() == (
                f"error: process {victim} of 3 ended; start all processes again; they go on "
                "from the last checkpoint\n"
            )


def test_a_process_that_says_goodbye_ends_no_other():
    with met(range(3)) as processes:
        assert [process.stdout.readline() for process in processes] == ["met\n"] * 3
        ends = finish([processes[0]]) + finish([processes[1]]) + finish([processes[2]])
    assert ends == [(0, "", "")] * 3


def test_processes_that_never_come_are_counted_in_all_others():
    line = (
        "--wait: 2 of 4 processes joined within 2 s; processes 1, 3 are missing; start all of them"
    )
    with met([2, 0], processes=4, wait=2) as processes:
        assert finish(processes) == [(1, "", f"{line} again\n")] * 2


def test_of_two_processes_with_one_number_the_second_is_refused():
    with met([0, 1, 1]) as processes:
        while not (refused := [p for p in processes if p.poll() is not None]):
            time.sleep(0.01)
        _, err = refused[0].communicate()
    assert re.match(r"--process-id: localhost:\d+ does not wait for process 1 of 3; give", err)


def is_free(port):
    with socket.socket() as probe:
        return probe.connect_ex(("localhost", port)) != 0


def finish(processes):
    """Exit code, standard output but for a note on waiting, and standard error of each."""
    ends = [process.communicate(timeout=120) for process in processes]
    return [
        (process.returncode, re.sub(r"\Awaiting up to .*\n", "", out), err)
        for process, (out, err) in zip(processes, ends, strict=True)
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The run of one process with two devices."""
    folder = tmp_path_factory.mktemp("one")
    command = [*COMMAND, "--devices", "2", *FLAGS, "--run", "whole"]
    subprocess.run(command, cwd=folder, stdout=subprocess.DEVNULL, check=True)
    return load_run(folder / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("begin", [start, start_under_slurm])
def test_two_processes_train_as_one_does_and_one_speaks(tmp_path, whole, begin):
    (code, out, err), other = finish(begin(tmp_path))
    assert (code, err) == (0, "")
    assert other == (0, "", "")
    assert re.match(r"jax +\S+ on 2 devices of 2 processes: cpu\n", out)
    assert len(re.findall(r"^  [012]/2  ", out, re.MULTILINE)) == 3
    together = load_run(tmp_path / "runs" / "reference")
    assert_identical(together.state, whole.state)
    assert without_seconds(together.history) == without_seconds(whole.history)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--seed", "1"),
            "seed is 0 in the first process and 1 in process 1; give every process the same",
        ),
        (("--devices", "2"), "devices: must be from 1 to 1, not 2: JAX finds 1 cpu device"),
        (
            ("--data-files", "nowhere"),
            "nowhere: not a folder; name the folder that holds the original files",
        ),
    ],
)
def test_what_one_process_cannot_do_stops_all(tmp_path, flags, message):
    (code, out, err), other = finish(start(tmp_path, each=((), flags)))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1
    assert other == (2, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_weights_that_cannot_be_read_stop_all(tmp_path):
    (code, out, err), other = finish(start(tmp_path, "--init-from", "nowhere"))
    assert (code, out) == (2, "")
    assert re.fullmatch("error: nowhere: no such run; name .*\n", err)
    assert other == (2, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_processes_begin_with_weights_that_the_first_reads_alone(tmp_path):
    """And nobody reads them to go on."""
    path = tmp_path / "model.safetensors"
    begin = load_pretrained("reference")
    save_weights(path, begin)
    for number in (1, 2):
        (code, out, err), other = finish(start(tmp_path, "--init-from", path.name))
        assert (code, err, other) == (0, "", (0, "", ""))
        assert ("finished already" in out) == (number == 2)
        path.unlink(missing_ok=True)
    history = load_run(tmp_path / "runs" / "reference").history
    assert history[0].test_correct == begin.history[-1].test_correct


@pytest.mark.slow
def test_a_port_that_is_taken_is_an_error(tmp_path):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        flags = ["--coordinator", f"localhost:{port}", "--processes", "2", "--process-id", "0"]
        out = subprocess.run(
            [*COMMAND, "--distributed", *flags], cwd=tmp_path, capture_output=True, text=True
        )
    assert (out.returncode, out.stdout) == (2, "")
    assert out.stderr.startswith(f"error: --coordinator: port {port} cannot be used here (")


@pytest.mark.slow
def test_a_signal_ends_the_wait_for_the_others(tmp_path):
    first, second = start(tmp_path)
    second.kill()
    while True:  # Until it listens, and so waits in JAX.
        with contextlib.suppress(OSError):
            socket.create_connection(("localhost", int(first.args[5].split(":")[1]))).close()
            break
    first.send_signal(signal.SIGTERM)
    assert first.wait(60) in (-signal.SIGTERM, 130)
    finish([first, second])


@pytest.mark.slow
def test_a_signal_to_one_stops_both_and_they_go_on_together(tmp_path, whole):
    processes = start(tmp_path)
    for line in processes[0].stdout:
        if line.startswith("  0/2  "):
            processes[1].send_signal(signal.SIGTERM)
            break
    (code, _, err), other = finish(processes)
    assert code == 130
    assert re.fullmatch(r"stopped and saved at step \d+ of 202; run the same again .*\n", err)
    assert other == (130, "", "")
    (code, out, err), other = finish(start(tmp_path))
    assert (code, err) == (0, "")
    assert "going on at step" in out
    assert other == (0, "", "")
    together = load_run(tmp_path / "runs" / "reference")
    assert_identical(together.state, whole.state)
    assert without_seconds(together.history) == without_seconds(whole.history)


def test_processes_that_cannot_meet_say_how_they_could(tmp_path):
    alone = {name: os.environ[name] for name in os.environ if not name.startswith("SLURM")}
    out = subprocess.run(
        [*COMMAND, "--distributed"], cwd=tmp_path, capture_output=True, text=True, env=alone
    )
    assert (out.returncode, out.stdout) == (2, "")
    assert out.stderr.startswith("error: --distributed: the environment does not say how")
    assert out.stderr.endswith(
        "; give each --coordinator HOST:PORT, --processes N and --process-id I\n"
    )
    assert out.stderr.count("\n") == 1
