"""Compiled kernels. Every function checks its arguments before it writes anything.

An `ArrayLike` is anything that exports memory: the buffer protocol, `__dlpack__` or
`__cuda_array_interface__` (NumPy, CuPy, PyTorch, JAX). Nothing is converted silently; float32 and
float64 are computed in their own precision, and the operands of one call share one dtype.
Results are new C-contiguous NumPy arrays (CuPy for device input) unless `out` is given; where
(N, C, H, W) inputs have their channels side by side in memory, elementwise results, convolutions
and poolings do too.

Errors: ValueError for values, shapes, overlap and read-only outputs, TypeError for dtypes and
foreign objects, RuntimeError for devices.
"""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
ArrayLike: TypeAlias = Any
Axis: TypeAlias = int | Sequence[int] | None

__version__: str

# --- machine ----------------------------------------------------------------------------------
def isa() -> str: ...
def use_isa(name: str) -> None: ...
def available_isas() -> list[str]: ...
def set_num_threads(n: int) -> None: ...
def get_num_threads() -> int: ...
def has_cuda() -> bool:
    """Whether a CUDA table serves arrays on a GPU (`thalweg.cuda.load`)."""

def install_cuda(table: object) -> None:
    """The capsule `_cuda.table()` serves arrays on a GPU from now on."""

def emulate_cuda(table: object | None) -> None:
    """For tests: the capsule `_cuda_emulated.table()` serves NumPy arrays; None ends that."""

def measure_limits(seconds: float = 0.2) -> dict[str, float]: ...
def release_memory() -> int:
    """Give the memory that freed results left, and that is kept for the next ones, back to the
    system; returns how many bytes that were."""

# --- elementwise: NumPy broadcasting, any strides ---------------------------------------------
def abs(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def neg(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def sign(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def square(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def sqrt(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def reciprocal(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def exp(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def log(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def erf(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def sigmoid(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def tanh(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def relu(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def leaky_relu(
    x: ArrayLike, negative_slope: float = 0.01, *, out: ArrayLike | None = None
) -> Array: ...
def gelu(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def softplus(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def copy(x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def add(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def sub(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def mul(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def div(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def pow(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def maximum(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def minimum(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def above(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array:
    """1 where a > b, 1/2 where they are equal, else 0: what of a maximum's gradient is a's."""

def less(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array:
    """1 where a < b, else 0."""

def equal(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array:
    """1 where a == b, else 0."""

def join(a: ArrayLike, b: ArrayLike, *, out: ArrayLike | None = None) -> Array:
    """a where b is 0 and b where a is 0, to the bit: two halves of a choice."""

# Gradients: `dy` times the derivative, from the forward *output* y where that determines it.
def relu_backward(dy: ArrayLike, y: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def leaky_relu_backward(
    dy: ArrayLike, y: ArrayLike, negative_slope: float = 0.01, *, out: ArrayLike | None = None
) -> Array: ...
def sigmoid_backward(dy: ArrayLike, y: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def tanh_backward(dy: ArrayLike, y: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def softplus_backward(dy: ArrayLike, y: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...
def gelu_backward(dy: ArrayLike, x: ArrayLike, *, out: ArrayLike | None = None) -> Array: ...

# --- reductions: one tree whose shape depends on the data's shape alone ------------------------
def sum(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array: ...
def mean(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array: ...
def max(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array: ...
def min(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array: ...
def sum_squares(x: ArrayLike, axis: Axis = None, *, keepdims: bool = False) -> Array: ...

# --- softmax and losses: along the last axis ---------------------------------------------------
def softmax(x: ArrayLike, axis: int = -1) -> Array: ...
def log_softmax(x: ArrayLike, axis: int = -1) -> Array: ...
def softmax_backward(dy: ArrayLike, y: ArrayLike, axis: int = -1) -> Array: ...
def log_softmax_backward(dy: ArrayLike, y: ArrayLike, axis: int = -1) -> Array: ...
def softmax_cross_entropy(
    logits: ArrayLike,
    target: ArrayLike,
    *,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
) -> tuple[Array, Array]:
    """(N, C) logits and N int32/int64 class indices -> loss, dlogits.

    loss is 0-d ("mean", "sum") or (N,) ("none"); dlogits (N, C) is the gradient of the reduced
    loss ("none": row i is the gradient of loss[i]).
    """

# --- normalisation ----------------------------------------------------------------------------
Saved: TypeAlias = tuple[Any, ...]

def batch_norm(
    x: ArrayLike,
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    running_mean: ArrayLike | None,
    running_var: ArrayLike | None,
    *,
    training: bool,
    momentum: float = 0.1,
    eps: float = 1e-5,
    axis: int = 1,
    residual: ArrayLike | None = None,
    activation: str | None = None,
    count: Array | None = None,
) -> tuple[Array, Saved]: ...
def batch_norm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike | None, saved: Saved, *, axis: int = 1
) -> tuple[Array, ...]:
    """dx, dgamma, dbeta, and dresidual too where the forward call had a residual."""

# The same in halves, for statistics that are merged across ranks in between.
def batch_norm_statistics(x: ArrayLike, *, axis: int = 1) -> tuple[int, Array, Array]:
    """n, mean (C,), M2 (C,) = sum of squared deviations; both float64."""

def batch_norm_apply(
    x: ArrayLike,
    gamma: ArrayLike | None,
    beta: ArrayLike | None,
    mean: ArrayLike,
    rstd: ArrayLike,
    *,
    axis: int = 1,
    residual: ArrayLike | None = None,
    activation: str | None = None,
) -> Array: ...
def batch_norm_backward_sums(
    dy: ArrayLike, x: ArrayLike, mean: ArrayLike, rstd: ArrayLike, *, axis: int = 1
) -> tuple[Array, Array]:
    """sum dy (C,), sum dy*xhat (C,); both float64."""

def batch_norm_backward_apply(
    dy: ArrayLike,
    x: ArrayLike,
    gamma: ArrayLike | None,
    mean: ArrayLike,
    rstd: ArrayLike,
    sum_dy: ArrayLike,
    sum_dy_xhat: ArrayLike,
    n: int,
    *,
    axis: int = 1,
) -> Array:
    """dx; the two sums and n are over all ranks."""

def layer_norm(
    x: ArrayLike, gamma: ArrayLike | None, beta: ArrayLike | None, *, eps: float = 1e-5
) -> tuple[Array, Saved]:
    """Over the last axis."""

def layer_norm_backward(
    dy: ArrayLike, x: ArrayLike, gamma: ArrayLike | None, saved: Saved
) -> tuple[Array, Array, Array]: ...

# --- pooling: (N, C, H, W), planes or channels-last by strides; results have the layout of x ------
Pair: TypeAlias = int | tuple[int, int]

def max_pool2d(
    x: ArrayLike,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    *,
    activation: str | None = None,
) -> tuple[Array, Saved]: ...
def max_pool2d_backward(dy: ArrayLike, x: ArrayLike, saved: Saved) -> Array: ...
def max_pool2d_pick(x: ArrayLike, saved: Saved) -> Array:
    """The elements of x where the array that was pooled had its largest."""

def avg_pool2d(
    x: ArrayLike,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array: ...
def avg_pool2d_backward(
    dy: ArrayLike,
    x: ArrayLike,
    kernel: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array: ...
def local_response_norm(
    x: ArrayLike, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> Array: ...
def local_response_norm_backward(
    dy: ArrayLike,
    x: ArrayLike,
    size: int,
    alpha: float = 1e-4,
    beta: float = 0.75,
    k: float = 1.0,
) -> Array: ...

# --- randomness --------------------------------------------------------------------------------
def dropout(
    x: ArrayLike,
    p: float,
    *,
    seed: int,
    step: int = 0,
    module: int = 0,
    sample_offset: int = 0,
    source: Array | None = None,
) -> Array:
    """x / (1-p) where kept, else 0.

    The mask is Philox4x32-10 of (seed; step, module, sample, element), with
    sample = sample_offset + index along axis 0. The gradient is the same call on dy."""

# --- products ----------------------------------------------------------------------------------
def matmul(
    a: ArrayLike,
    b: ArrayLike,
    *,
    out: ArrayLike | None = None,
    accumulate: bool = False,
    bias: ArrayLike | None = None,
    activation: str | None = None,
    precision: str | None = None,
) -> Array:
    """bfloat16 operands are summed in float32; their out and bias may be float32."""

def matmul_path(
    m: int, k: int, n: int, *, dtype: str = "float32", precision: str | None = None
) -> tuple[str, str]:
    """The path that (m, k) @ (k, n) takes, and why."""

def set_matmul_precision(precision: str) -> None: ...
def get_matmul_precision() -> str: ...

# --- convolution -------------------------------------------------------------------------------
# Images are (N, C, H, W) in any strides. Those of a result are channels-last if those that it is
# made from are. padding: above, below, left, right.
def conv2d(
    x: ArrayLike,
    weight: ArrayLike,
    bias: ArrayLike | None,
    *,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    activation: str | None = None,
    precision: str | None = None,
) -> Array: ...
def conv2d_data_gradient(
    dy: ArrayLike,
    weight: ArrayLike,
    size: tuple[int, int],
    *,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    precision: str | None = None,
) -> Array:
    """dx, where x has (height, width) = size."""

def conv2d_weight_gradient(
    dy: ArrayLike,
    x: ArrayLike,
    kernel: tuple[int, int],
    *,
    stride: tuple[int, int],
    padding: tuple[int, int, int, int],
    dilation: tuple[int, int],
    groups: int,
    precision: str | None = None,
) -> Array:
    """dw, where a kernel has (height, width) = kernel."""

# --- optimizers --------------------------------------------------------------------------------
def optimizer_rules() -> dict[str, list[str]]:
    """Rule name -> names of its per-element states, e.g. {"adam": ["exp_avg", "exp_avg_sq"]}."""

STEP_FIELDS: tuple[str, ...]  # columns of `steps`: step, beta1_power, beta2_power, mu_product
HYPER_FIELDS: tuple[str, ...]  # order of a group's hyperparameters in `hyper`

class FusedOptimizer:
    """One native call per step over all tensors of all groups.

    Unscale, sum of gradient sources, global norm, clip, decay, rule, average and zeroing in one
    pass (two when a global norm is asked for) over the arrays, in place, without copies. Holds
    references to the arrays.
    """

    def add_group(
        self,
        rule: str,
        params: Sequence[ArrayLike],
        states: Sequence[Sequence[ArrayLike]],
        steps: npt.NDArray[np.float64],
        averages: Sequence[ArrayLike] | None = None,
        lr_scales: Sequence[float] | None = None,
        masters: Sequence[ArrayLike | None] | None = None,
        absmax: Sequence[Sequence[ArrayLike]] | None = None,
        copies: Sequence[ArrayLike | None] | None = None,
    ) -> int:
        """states[k][i] is state k of tensor i, same shape and dtype as params[i], or as masters[i]:
        the float32 copy that a bfloat16 or float16 parameter has and others have not. With
        absmax the states are uint8 codes and absmax[k][i] the float32 scales of 256 codes each.
        copies[i], bfloat16 or float16, is written with the float32 parameter rounded.
        steps is (len(params), len(STEP_FIELDS)) float64, C-contiguous, updated in place."""

    def step(
        self,
        hyper: npt.NDArray[np.float64],
        grads: Sequence[Sequence[ArrayLike | Sequence[ArrayLike] | None]],
        *,
        grad_scale: float = 1.0,
        max_norm: float | None = None,
        clip_value: float | None = None,
        ema_decay: float | None = None,
        zero_grad: bool = False,
        nonfinite: Literal["propagate", "skip", "raise"] = "propagate",
    ) -> float | None:
        """hyper is (groups, len(HYPER_FIELDS)). grads[g][i] is one array, a list of arrays to be
        summed in order (gradient sources), or None (tensor skipped, its step count too).
        Returns the global norm before clipping where max_norm is given or nonfinite is not
        "propagate", else None. An Inf or NaN then leaves parameters, states and steps as they are
        ("skip" zeroes the gradients under zero_grad) and sets `nonfinite_tensor`; raising is the
        caller's business."""

    @property
    def last_norm(self) -> float | None:
        """What the last step returned on the CPU."""

    @property
    def nonfinite_tensor(self) -> int | None:
        """The first tensor, counted over all groups, in whose gradient the last step found Inf or
        NaN; None where it found none or did not look."""

    def grad_norm(
        self,
        grads: Sequence[Sequence[ArrayLike | Sequence[ArrayLike] | None]],
        *,
        grad_scale: float = 1.0,
    ) -> float: ...

# --- numbers in memory, labels -----------------------------------------------------------------
def empty(shape: Sequence[int], dtype: str) -> Array:
    """Uninitialised float32 or float64 memory, which a recorded step knows as its own."""

def fill(out: ArrayLike, value: float) -> None: ...
def advance(counter: ArrayLike) -> None:
    """counter += 1, for one int64."""

def snapshot(counters: ArrayLike) -> npt.NDArray[np.int64]:
    """A copy of int64 counters, as of now."""

def cast(x: ArrayLike, dtype: str) -> Array:
    """x as float32, float64 or bool, C-contiguous."""

def check_labels(op: str, target: ArrayLike, classes: int) -> None:
    """ValueError in the name of `op` unless (N,) int32 or int64 labels lie in [0, classes)."""

def check_probabilities(op: str, target: ArrayLike) -> None:
    """ValueError in the name of `op` unless all elements lie in [0, 1]."""

def pick(x: ArrayLike, target: ArrayLike) -> Array:
    """(N,): x[i, target[i]]."""

def unpick(dy: ArrayLike, target: ArrayLike, classes: int) -> Array:
    """(N, classes): dy[i] at column target[i], 0 elsewhere."""

# --- plans -------------------------------------------------------------------------------------
class Plan:
    """Recorded launches; see csrc/plan/plan.h. Results of operations that run between `start` and
    `stop` are arrays of the class `array_type`."""

    def __init__(self, array_type: type[Array]) -> None: ...
    made_bytes: int  # by the recorded operations
    arena_bytes: int  # that the replay needs for it

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def input(self, array: Array) -> int: ...
    def constant(self, array: Array) -> int: ...
    def state(self, array: Array) -> int: ...
    def problem(self) -> str | None: ...
    def difference(self, other: Plan) -> str | None: ...
    def settle(self, bound: Sequence[bool]) -> None: ...
    def leave(self) -> bool: ...
    def run(self, arguments: list[Array], begin: int = 0, end: int = ...) -> None: ...
    def save(self) -> bytes: ...
    def restore(self, contents: bytes) -> None: ...
    def __len__(self) -> int: ...

class Profile:
    """Times the launches of this thread between `start` and `stop`."""

    def __init__(self) -> None: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...
    def events(self) -> list[tuple[str, float, float, float, float]]:
        """(name, floating-point operations, bytes, start, seconds) of each launch."""
