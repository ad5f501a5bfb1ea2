"""Adam as a JAX function, for the suites that train with it."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

LR, BETA1, BETA2, EPS = 1e-3, 0.9, 0.999, 1e-8


def adam(state: Any, grads: Any) -> Any:
    """(parameters, first moments, second moments, steps done) after one more step."""
    params, first, second, steps = state
    steps = steps + 1
    first = jax.tree.map(lambda m, g: BETA1 * m + (1 - BETA1) * g, first, grads)
    second = jax.tree.map(lambda v, g: BETA2 * v + (1 - BETA2) * g * g, second, grads)
    rate = LR / (1 - BETA1**steps)
    correction = jnp.sqrt(1 - BETA2**steps)
    params = jax.tree.map(
        lambda p, m, v: p - rate * m / (jnp.sqrt(v) / correction + EPS), params, first, second
    )
    return params, first, second, steps
