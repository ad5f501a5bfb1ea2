"""BatchNorm folded into the layer before it: the same function, and refusals by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import thalweg as tw
from thalweg import nn


def randomise(model: nn.Module, seed: int = 0) -> nn.Module:
    """Weights, statistics with means far from 0 and variances far from 1; evaluation mode."""
    rng = np.random.default_rng(seed)
    for name, array in model.state_dict().items():
        if array.dtype.kind == "f":
            array[...] = rng.normal(size=array.shape)
            if name.endswith("running_var"):
                array[...] = np.exp(2 * array)
    return model.eval()


def bound(layer: Any, bn: Any, x: np.ndarray) -> np.ndarray:
    """The documented bound of the difference, evaluated by the layer itself on magnitudes."""

    def magnitude(array: Any) -> Any:
        return 0.0 if array is None else np.abs(array.astype("f8"))

    sizes, unit = type(layer), np.finfo(layer.weight.dtype).eps / 2
    absolute = _wide_copy(layer, sizes)
    scale = magnitude(bn.weight.data if bn.weight is not None else np.ones(1)) / np.sqrt(
        bn.running_var.astype("f8") + bn.eps
    )
    products = absolute(tw.tensor(np.abs(x).astype("f8"))).data
    k = layer.weight.data[0].size
    shape = (-1, *[1] * (products.ndim - 2))
    beta = magnitude(bn.bias.data if bn.bias is not None else None)
    rest = scale * magnitude(bn.running_mean) + beta
    return (2 * k + 10) * unit * (scale.reshape(shape) * products + rest.reshape(shape))


def _wide_copy(layer: Any, kind: type) -> Any:
    if kind is nn.Linear:
        wide: Any = nn.Linear(layer.in_features, layer.out_features, dtype="f8")
    else:
        wide = nn.Conv2d(
            layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride,
            layer.padding, layer.dilation, layer.groups, dtype="f8",
        )  # fmt: skip
    wide.weight.data[...] = np.abs(layer.weight.data)
    wide.bias.data[...] = 0 if layer.bias is None else np.abs(layer.bias.data)
    return wide


PAIRS = {
    "linear": lambda d: (nn.Linear(30, 7, dtype=d), nn.BatchNorm1d(7, dtype=d), (5, 30)),
    "no bias": lambda d: (nn.Linear(30, 7, False, dtype=d), nn.BatchNorm1d(7, dtype=d), (5, 30)),
    "no gamma": lambda d: (
        nn.Linear(30, 7, dtype=d), nn.BatchNorm1d(7, affine=False, dtype=d), (5, 30)),
    "conv": lambda d: (nn.Conv2d(4, 6, 3, dtype=d), nn.BatchNorm2d(6, dtype=d), (2, 4, 8, 9)),
    "grouped, strided": lambda d: (
        nn.Conv2d(4, 6, (3, 2), 2, 1, groups=2, bias=False, dtype=d),
        nn.BatchNorm2d(6, dtype=d), (2, 4, 8, 9)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("pair", PAIRS)
def test_a_fused_layer_is_the_two_layers_within_the_bound(pair: str, dtype: str) -> None:
    layer, bn, shape = PAIRS[pair](dtype)
    model = randomise(nn.Sequential(layer, bn))
    x = np.random.default_rng(1).normal(size=shape).astype(dtype)
    expected = model(tw.tensor(x)).data
    one = nn.fuse_linear_bn_eval if isinstance(layer, nn.Linear) else nn.fuse_conv_bn_eval
    for fused in (nn.fuse(model), one(layer, bn)):
        got = fused(tw.tensor(x)).data
        assert got.dtype == expected.dtype == dtype
        assert np.all(np.abs(got - expected) <= bound(layer, bn, x))
    assert len(list(nn.fuse(model).modules())) == 2


@pytest.mark.torch
@pytest.mark.parametrize("pair", ["linear", "no bias", "conv"])
def test_agrees_with_torch(pair: str) -> None:
    torch = pytest.importorskip("torch")
    layer, bn, _ = PAIRS[pair]("float32")
    randomise(nn.Sequential(layer, bn))
    with_bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        theirs, norm = torch.nn.Linear(30, 7, with_bias), torch.nn.BatchNorm1d(7)
        fold, ours = torch.nn.utils.fusion.fuse_linear_bn_eval, nn.fuse_linear_bn_eval(layer, bn)
    else:
        theirs, norm = torch.nn.Conv2d(4, 6, 3), torch.nn.BatchNorm2d(6)
        fold, ours = torch.nn.utils.fusion.fuse_conv_bn_eval, nn.fuse_conv_bn_eval(layer, bn)
    for module, source in ((theirs, layer), (norm, bn)):
        state = {k: torch.tensor(v) for k, v in source.state_dict().items()}
        module.load_state_dict(state)
    expected = fold(theirs.eval(), norm.eval()).state_dict()
    for name, array in ours.state_dict().items():
        np.testing.assert_allclose(array, expected[name].numpy(), rtol=1e-6, atol=1e-6)


def test_the_rest_of_a_model_stays() -> None:
    inner = nn.Sequential(nn.Conv2d(4, 4, 1), nn.BatchNorm2d(4), nn.ReLU())
    head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 3), nn.BatchNorm1d(3), nn.BatchNorm1d(3))
    body = nn.Sequential(nn.Residual(inner), nn.Flatten(2), nn.BatchNorm1d(4))
    model = randomise(nn.Sequential({"body": body, "head": head}))
    before = {name: array.copy() for name, array in model.state_dict().items()}
    fused = nn.fuse(model)
    names = [name for name, _ in fused.named_modules()]
    assert names == ["", "body", "body.0", "body.0.body", "body.0.body.0", "body.0.body.2",
                     "body.1", "body.2", "head", "head.0", "head.1"]  # fmt: skip
    for name, array in model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    x = np.random.default_rng(2).normal(size=(5, 4)).astype("f4")
    head_in = tw.tensor(x)
    np.testing.assert_allclose(fused.head(head_in).data, head(head_in).data, rtol=1e-4, atol=1e-4)


def test_a_layer_in_two_places_is_folded_in_each_by_itself() -> None:
    shared = nn.Linear(3, 3)
    model = randomise(nn.Sequential(shared, nn.BatchNorm1d(3), nn.ReLU(), shared))
    x = tw.tensor(np.random.default_rng(3).normal(size=(5, 3)).astype("f4"))
    np.testing.assert_allclose(nn.fuse(model)(x).data, model(x).data, rtol=1e-4, atol=1e-4)


def test_what_cannot_be_folded_is_named() -> None:
    linear = nn.Linear(4, 3)
    model = nn.Sequential({"body": nn.Sequential(linear, nn.BatchNorm1d(3))})
    with pytest.raises(ValueError, match=r"^fuse: body\.1 \(BatchNorm1d\) is in training mode"):
        nn.fuse(model)
    with pytest.raises(ValueError, match=r"^fuse_linear_bn_eval: bn \(BatchNorm1d\) is in train"):
        nn.fuse_linear_bn_eval(linear, model.body[1])
    untracked = nn.BatchNorm1d(3, track_running_stats=False).eval()
    with pytest.raises(ValueError, match=r"bn \(BatchNorm1d\) has no running statistics to fold"):
        nn.fuse_linear_bn_eval(linear, untracked)
    with pytest.raises(ValueError, match=r"has 5 channels, its layer gives 3$"):
        nn.fuse(nn.Sequential(linear, nn.BatchNorm1d(5)).eval())
