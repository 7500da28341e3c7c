"""Training as pure functions: the step, the epoch, the loop over epochs, and what they need."""

from rnn_mnist.training.calibration import (
    Calibration,
    calibrate,
    calibrated_params,
    calibration_from_json,
    calibration_to_json,
)
from rnn_mnist.training.epoch import eval_epoch, train_epoch
from rnn_mnist.training.learner import (
    abstract_state,
    default_cpu_count,
    describe_kernel,
    init_from_seed,
    init_key,
    make_learner,
    make_model,
    step_key,
)
from rnn_mnist.training.likeness import features_of
from rnn_mnist.training.loop import Progress, advance
from rnn_mnist.training.optimizers import make_optimizer
from rnn_mnist.training.setup import (
    EVALUATION_BATCH,
    EVALUATION_STEPS,
    Plan,
    check_strokes,
    compile_programs,
    make_plan,
)
from rnn_mnist.training.step import Metrics, State, apply, eval_params, init, nll, train_step

__all__ = [
    "EVALUATION_BATCH", "EVALUATION_STEPS", "Calibration", "Metrics", "Plan", "Progress", "State",
    "abstract_state", "advance", "apply", "calibrate", "calibrated_params", "calibration_from_json",
    "calibration_to_json", "check_strokes", "compile_programs", "default_cpu_count",
    "describe_kernel", "eval_epoch", "eval_params", "features_of", "init", "init_from_seed",
    "init_key", "make_learner", "make_model", "make_optimizer", "make_plan", "nll", "step_key",
    "train_epoch", "train_step",
]  # fmt: skip
