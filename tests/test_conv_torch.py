"""Every convolution of LeNet, AlexNet, GoogLeNet and ResNet-18 as PyTorch computes it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import thalweg as tw
from conv_layers import NETWORKS, ConvLayer

DISTINCT = {layer: f"{net} {layer.name}" for net in NETWORKS for layer in NETWORKS[net]}
DEEP = 2e-6  # of the largest result: the rounding of two orders of summation


@pytest.mark.torch
@pytest.mark.parametrize("layer", DISTINCT, ids=lambda layer: DISTINCT[layer])
def test_layers_of_known_networks_agree_with_torch(layer: ConvLayer) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)

    def drawn(*shape: int) -> Any:
        return rng.standard_normal(shape, np.float32)

    x, w = drawn(1, layer.channels, layer.size, layer.size), drawn(*layer.weight_shape)
    dy = drawn(1, layer.outputs, layer.output_size, layer.output_size)
    options = (layer.stride, layer.padding, 1, layer.groups)
    y = tw.conv2d(x, w, None, *options)
    dx, dw, db = tw.conv2d_backward(dy, x, w, *options)
    theirs = [torch.from_numpy(a).requires_grad_() for a in (x, w, np.zeros_like(db))]
    expected = torch.nn.functional.conv2d(*theirs, *options)
    expected.backward(torch.from_numpy(dy))
    pairs = [(y, expected.detach()), *zip((dx, dw, db), (t.grad for t in theirs), strict=True)]
    for ours, right in pairs:
        right = right.numpy()
        assert ours.shape == right.shape
        np.testing.assert_allclose(ours, right, rtol=0, atol=DEEP * np.abs(right).max())
