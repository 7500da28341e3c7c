"""Training as pure functions: the step, the epoch, the loop over epochs, and what they need."""

from rnn_mnist.training.augment import Distortion
from rnn_mnist.training.loop import Progress, advance
from rnn_mnist.training.optimizers import make_optimizer
from rnn_mnist.training.setup import (
    EVALUATION_BATCH,
    EVALUATION_STEPS,
    Plan,
    abstract_state,
    compile_programs,
    configured_optimizer,
    default_cpu_count,
    describe_kernel,
    init_key,
    make_distortion,
    make_model,
    make_plan,
    own_device,
    step_key,
)
from rnn_mnist.training.step import (
    Metrics,
    State,
    apply,
    eval_params,
    evaluate,
    init,
    nll,
    train_epoch,
    train_step,
)

__all__ = [
    "EVALUATION_BATCH",
    "EVALUATION_STEPS",
    "Distortion",
    "Metrics",
    "Plan",
    "Progress",
    "State",
    "abstract_state",
    "advance",
    "apply",
    "compile_programs",
    "configured_optimizer",
    "default_cpu_count",
    "describe_kernel",
    "eval_params",
    "evaluate",
    "init",
    "init_key",
    "make_distortion",
    "make_model",
    "make_optimizer",
    "make_plan",
    "nll",
    "own_device",
    "step_key",
    "train_epoch",
    "train_step",
]
