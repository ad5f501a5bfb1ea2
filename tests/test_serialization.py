"""Checkpoint files: round trips, and damage that is found."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from thalweg.callbacks import load_newest
from thalweg.serialization import DTYPES, CheckpointError, load, save

DTYPE = st.sampled_from([np.dtype(name) for name in DTYPES])

ARRAYS = DTYPE.flatmap(
    lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0))
)

LEAVES = (
    ARRAYS
    | st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)

KEYS = st.text(st.characters(min_codepoint=97, max_codepoint=122), min_size=1)

TREES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(KEYS, inner, max_size=3)
        | st.dictionaries(st.integers(), inner, max_size=3)
    ),
    max_leaves=8,
)


def assert_same(a: Any, b: Any) -> None:
    assert type(a) is type(b)
    if isinstance(a, np.ndarray):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_same(a[key], b[key])
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y)
    else:
        assert a == b


class Part:
    """A model or an optimizer, as far as files care."""

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state

    def state_dict(self) -> dict[str, Any]:
        return self.state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state = state


def example() -> dict[str, Any]:
    return {
        "model": {
            "0.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
            "1.num_batches_tracked": np.array(7),
        },
        "optimizer": {
            "state": {0: {"exp_avg": np.ones((2, 3)), "step": 5.0}},
            "betas": (0.9, 0.99),
        },
        "epoch": 3,
        "best": float("inf"),
        "note": 'Lößchen "quoted"',
    }


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run.safetensors"


# --- round trips ----------------------------------------------------------------------------------


@given(tree=st.dictionaries(KEYS.filter(lambda key: key not in ("path", "model")), TREES))
def test_any_tree_comes_back_as_it_was(tmp_path_factory: Any, tree: dict[str, Any]) -> None:
    file = tmp_path_factory.mktemp("tree") / "file.safetensors"
    if not isinstance(tree.get("optimizer"), dict | None):
        tree.pop("optimizer")
    save(file, **tree)
    assert_same(load(file), {k: v for k, v in tree.items() if (k, v) != ("optimizer", None)})


@pytest.mark.parametrize(
    "array",
    [
        np.arange(12.0).reshape(3, 4).T,
        np.arange(12.0)[::-2],
        np.broadcast_to(np.float32(3), (2, 2)),
        np.arange(3, dtype=">f8"),
    ],
    ids=["transposed", "negative stride", "broadcast", "big-endian"],
)
def test_layout_and_byte_order_do_not_matter(path: Path, array: np.ndarray) -> None:
    save(path, a=array)
    back = load(path)["a"]
    np.testing.assert_array_equal(back, array)
    assert back.flags.c_contiguous and back.flags.writeable and back.dtype.isnative


def test_a_scalar_of_numpy_keeps_its_type(path: Path) -> None:
    save(path, a=np.int16(3))
    assert_same(load(path)["a"], np.array(3, np.int16))


def test_parts_take_over_what_was_saved(path: Path) -> None:
    tree = example()
    save(path, Part(tree["model"]), Part(tree["optimizer"]), epoch=3)
    model, optimizer = Part({}), Part({})
    load(path, model, optimizer)
    assert_same(model.state, tree["model"])
    assert_same(optimizer.state, tree["optimizer"])


def test_a_part_that_the_file_lacks_is_named(path: Path) -> None:
    save(path, Part({"w": np.ones(2)}))
    model = Part({})
    with pytest.raises(CheckpointError, match=r"with 'optimizer', found \['model'\]"):
        load(path, model, Part({}))
    assert model.state == {}


@pytest.mark.torch
def test_torch_reads_the_model_under_its_own_names(path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import load_file

    theirs = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    state = {name: tensor.numpy() + 1 for name, tensor in theirs.state_dict().items()}
    save(path, Part(state), note="metadata does not disturb")
    assert theirs.load_state_dict(load_file(path), strict=True)
    for name, tensor in theirs.state_dict().items():
        np.testing.assert_array_equal(tensor.numpy(), state[name])


BAD_TREES: dict[str, tuple[dict[str, Any], type[Exception], str]] = {
    "object": ({"a": {"b": object()}}, TypeError, "'a/b' is a object"),
    "function": ({"a": [1, print]}, TypeError, "'a/1' is a builtin_function"),
    "complex array": ({"a": np.ones(2, complex)}, TypeError, "'a' has dtype complex128"),
    "object array": ({"a": np.array([None])}, TypeError, "'a' has dtype object"),
    "mixed keys": ({"a": {1: 0, "b": 0}}, TypeError, "keys of 'a'"),
    "reserved name": ({"model": {"__metadata__": np.ones(1)}}, ValueError, "'__metadata__'"),
    "name twice": (
        {"model": {"x/y": np.ones(1)}, "x": {"y": np.ones(1)}},
        ValueError,
        "two arrays would be named 'x/y'",
    ),
}


@pytest.mark.parametrize("tree, error, message", BAD_TREES.values(), ids=BAD_TREES)
def test_what_is_no_tree_is_refused_before_writing(
    path: Path, tree: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        save(path, **tree)
    assert list(path.parent.iterdir()) == []


# --- damage ---------------------------------------------------------------------------------------


def test_every_flipped_bit_is_found(path: Path) -> None:
    save(path, model={"w": np.arange(3, dtype=np.float32)}, epoch=3)
    whole = path.read_bytes()
    for position in range(len(whole)):
        # Every byte once and, over the file, every bit of a byte: the whole product is slow.
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError, match=str(path)):
            load(path)


def test_every_truncation_is_found(path: Path) -> None:
    save(path, **example())
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(CheckpointError, match=str(path)):
            load(path)


def test_a_file_that_has_grown_is_found(path: Path) -> None:
    save(path, **example())
    path.write_bytes(path.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="truncated or extended"):
        load(path)


def test_the_damaged_tensor_is_named(path: Path) -> None:
    save(path, **example())
    content = path.read_bytes()
    damaged = content.replace(np.float32(5).tobytes(), np.float32(6).tobytes())
    assert damaged != content
    path.write_bytes(damaged)
    with pytest.raises(CheckpointError, match=r"tensor '0.weight' is damaged, expected SHA-256"):
        load(path)


def test_another_programs_file_is_told_apart(path: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"w": np.ones(2)}, path)
    with pytest.raises(CheckpointError, match=r"not thalweg's .*safetensors.numpy.load_file"):
        load(path)


def forged(header: Any, data: bytes = b"") -> bytes:
    """A file with any header, and a digest that fits it."""
    import hashlib

    raw = json.dumps(header).encode()
    digest = hashlib.sha256(raw).hexdigest().encode()
    raw = raw.replace(b"0" * 64, digest, 1)
    return len(raw).to_bytes(8, "little") + raw + data


def metadata(manifest: str) -> dict[str, Any]:
    return {"__metadata__": {"header_sha256": "0" * 64, "thalweg": manifest}}


EMPTY_TREE = '{"format": 1, "digests": {}, "tree": {"dict": {}}}'

FORGED = {
    "manifest is no JSON": metadata("{"),
    "manifest is a list": metadata("[]"),
    "manifest without a tree": metadata('{"digests": {}}'),
    "tree names no tensor": metadata('{"digests": {}, "tree": {"tensor": "w"}}'),
    "tree with two kinds": metadata('{"digests": {}, "tree": {"dict": {}, "tuple": []}}'),
    "entry is no object": metadata(EMPTY_TREE) | {"w": 3},
    "offsets beyond the file": metadata(EMPTY_TREE)
    | {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 1 << 42]}},
    "shape disagrees with offsets": metadata(EMPTY_TREE)
    | {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 0]}},
    "overflowing shape": metadata(EMPTY_TREE)
    | {"w": {"dtype": "F32", "shape": [1 << 32, 1 << 32], "data_offsets": [0, 0]}},
    "unknown dtype": metadata(EMPTY_TREE)
    | {"w": {"dtype": "BF16", "shape": [0], "data_offsets": [0, 0]}},
}


@pytest.mark.parametrize("header", FORGED.values(), ids=FORGED)
def test_forged_headers_are_refused(path: Path, header: Any) -> None:
    path.write_bytes(forged(header))
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


def test_deep_nesting_is_refused(path: Path) -> None:
    path.write_bytes(forged(metadata('{"digests": {}, "tree": ' + "[" * 100_000 + "]" * 100_000)))
    with pytest.raises(CheckpointError, match=str(path)):
        load(path)


def test_the_newest_whole_checkpoint_is_used_and_the_bad_one_named(tmp_path: Path) -> None:
    for epoch in (1, 2, 3):
        save(tmp_path / f"checkpoint-{epoch:06}.safetensors", epoch=epoch, w=np.ones(4))
    newest = tmp_path / "checkpoint-000003.safetensors"
    newest.write_bytes(newest.read_bytes()[:-1])
    with pytest.warns(RuntimeWarning, match="checkpoint-000003"):
        assert load_newest(tmp_path)["epoch"] == 2


def test_without_a_whole_checkpoint_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="found 0 files"):
        load_newest(tmp_path)
