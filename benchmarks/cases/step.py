"""Whole training steps with Adam: forward, cross-entropy, backward, update.

All start from the same weights and see the same batches; their losses have to agree before anything
is timed. PyTorch with its fused Adam, eager and compiled; JAX jitted with donated buffers, a call a
step and a `lax.scan` over steps; scikit-learn where it has the network.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from case import Case, Side, Work
from cases.networks import NETWORKS, Network, build, jax_forward
from measure import Record, Run, compare

LR = 1e-3


def records(run: Run) -> Iterator[Record]:
    return compare("step", cases(run.quick), run)


def cases(quick: bool) -> Iterator[Case]:
    for network in NETWORKS:
        if network.quick or not quick:
            yield _case(network, quick)


def _case(network: Network, quick: bool) -> Case:
    sides = {
        "thalweg captured": functools.partial(_ours, network, captured=True),
        "torch eager": functools.partial(_torch, network, compiled=False),
        "jax jit": functools.partial(_jax, network, scan=False),
    }
    if network.precision != "highest":
        return Case(
            network.name, sides, 1e-3, Work(network.flops * network.steps), None, network.steps
        )
    if network.steps > 1:
        sides["thalweg eager"] = functools.partial(_ours, network, captured=False)
        sides["jax scan"] = functools.partial(_jax, network, scan=True)
    if "BN" in network.name and not quick:  # 20 seconds to compile, which larger ones exceed
        sides["torch compiled"] = functools.partial(_torch, network, compiled=True)
    if "BN" not in network.name and len(network.input) == 1:
        sides["sklearn"] = functools.partial(_sklearn, network)
    work = Work(network.flops * network.steps)
    return Case(network.name, sides, 1e-3, work, units=network.steps)


def _ours(network: Network, captured: bool) -> Side:
    import thalweg as tw

    composed = {"Residual": tw.nn.Residual, "Concat": tw.nn.Concat}
    model = build(tw.nn, network.layers, composed)
    for parameter, values in zip(model.parameters(), network.weights(), strict=True):
        parameter.data[...] = values
    optimizer = tw.optim.Adam(model.parameters(), lr=LR)
    criterion = tw.nn.CrossEntropyLoss()
    batches = [(tw.tensor(x), y) for x, y in network.batches()]

    def step(x: Any, y: Any) -> Any:
        loss = criterion(model(x), y)
        loss.backward()
        optimizer.step(zero_grad=True)
        return loss

    run = tw.capture(step) if captured else step
    losses = np.zeros(network.steps)

    def call() -> None:
        tw.set_matmul_precision(network.precision)
        for i, (x, y) in enumerate(batches):
            losses[i] = run(x, y).item()

    return Side(call, lambda: [losses])


def _torch(network: Network, compiled: bool) -> Side:
    import torch

    model = _torch_model(network)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR, fused=True)
    criterion = torch.nn.CrossEntropyLoss()
    batches = [(torch.from_numpy(x), torch.from_numpy(y)) for x, y in network.batches()]

    def loss_of(x: Any, y: Any) -> Any:
        return criterion(model(x), y)

    if compiled:
        from torch._inductor import config

        config.compile_threads = 1  # no processes of its own, which nobody would stop
    forward = torch.compile(loss_of) if compiled else loss_of
    losses = np.zeros(network.steps)

    def call() -> None:
        torch.set_float32_matmul_precision(network.precision)
        for i, (x, y) in enumerate(batches):
            loss = forward(x, y)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[i] = loss.item()

    return Side(call, lambda: [losses])


def _torch_model(network: Network) -> Any:
    import torch

    class Residual(torch.nn.Sequential):
        def forward(self, x: Any) -> Any:
            return x + super().forward(x)

    class Concat(torch.nn.ModuleList):
        def forward(self, x: Any) -> Any:
            return torch.cat([branch(x) for branch in self], 1)

    composed = {"Residual": Residual, "Concat": lambda *branches: Concat(branches)}
    model = build(torch.nn, network.layers, composed)
    with torch.no_grad():
        for parameter, values in zip(model.parameters(), network.weights(), strict=True):
            parameter.copy_(torch.from_numpy(values))
    return model


def _jax(network: Network, scan: bool) -> Side:
    import jax
    import jax.numpy as jnp

    from cases.jax_adam import adam

    def loss_of(params: Any, x: Any, y: Any) -> Any:
        logits = jax_forward(network.layers, iter(params), x)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()

    def step(state: Any, batch: Any) -> Any:
        loss, grads = jax.value_and_grad(loss_of)(state[0], *batch)
        return adam(state, grads), loss

    one = jax.jit(step, donate_argnums=0)
    many = jax.jit(lambda state, batches: jax.lax.scan(step, state, batches), donate_argnums=0)
    batches = [(jnp.asarray(x), jnp.asarray(y)) for x, y in network.batches()]
    stacked = tuple(jnp.stack(arrays) for arrays in zip(*batches, strict=True))
    params = [jnp.asarray(w) for w in network.weights()]
    zeros = [[jnp.zeros_like(p) for p in params] for _ in range(2)]
    last: dict[str, Any] = {"state": (params, *zeros, jnp.zeros(()))}
    losses = np.zeros(network.steps)

    def call() -> None:
        if scan:
            last["state"], found = many(last["state"], stacked)
            losses[:] = found
            return
        for i, batch in enumerate(batches):
            last["state"], loss = one(last["state"], batch)
            losses[i] = loss

    return Side(call, lambda: [losses])


def _sklearn(network: Network) -> Side:
    import warnings

    from sklearn.neural_network import MLPClassifier

    warnings.simplefilter("ignore")
    hidden = [layer[2] for layer in network.layers if layer[0] == "Linear"][:-1]
    model = MLPClassifier(hidden, batch_size=network.batch, alpha=0, learning_rate_init=LR)
    batches, weights = network.batches(), network.weights()
    model.partial_fit(*batches[0], classes=range(10))  # makes what is overwritten next
    model.coefs_ = [np.ascontiguousarray(w.T) for w in weights[::2]]
    model.intercepts_ = list(weights[1::2])
    del model._optimizer
    losses = np.zeros(network.steps)

    def call() -> None:
        for i, (x, y) in enumerate(batches):
            model.partial_fit(x, y)
            losses[i] = model.loss_

    return Side(call, lambda: [losses])
