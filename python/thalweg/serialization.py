"""Models and checkpoints: one safetensors file, written atomically, verified when read.

A tree (nested dicts, lists and tuples of arrays, numbers, strings, None) becomes one file. Its
arrays are the file's tensors, the rest is JSON in the file's metadata; nothing is pickled. The
model's tensors carry their plain state-dict names, so that a file saved with a model alone loads
strictly into the same PyTorch model:

    torch_model.load_state_dict(safetensors.torch.load_file("model.safetensors"))

All other arrays are named by their place in the tree (`optimizer/state/0/exp_avg`), so a
checkpoint, which holds more than a model, is for `load`.

Integrity: the metadata holds a SHA-256 digest per tensor and one of the header itself, computed
with 64 zeros in its place. Any truncation and any flipped bit therefore fails `load`, which names
the damaged tensor. Format: https://huggingface.co/docs/safetensors.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open

from .backend import Array
from .files import atomic_write

FORMAT = 1
MAX_HEADER_BYTES = 100_000_000  # safetensors' own limit
NO_DIGEST = "0" * 64
DTYPES = {
    "float64": "F64",
    "float32": "F32",
    "float16": "F16",
    "int64": "I64",
    "int32": "I32",
    "int16": "I16",
    "int8": "I8",
    "uint64": "U64",
    "uint32": "U32",
    "uint16": "U16",
    "uint8": "U8",
    "bool": "BOOL",
}
DTYPE_OF_CODE = {code: np.dtype(name) for name, code in DTYPES.items()}


class CheckpointError(ValueError):
    """A file that is no whole, undamaged thalweg file."""


class Stateful(Protocol):
    """What `save` and `load` ask of a model or an optimizer."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> Any: ...


def save(
    path: str | os.PathLike[str],
    model: Stateful | Mapping[str, Any] | None = None,
    optimizer: Stateful | Mapping[str, Any] | None = None,
    **extra: Any,
) -> None:
    """Write a model, an optimizer and anything else that is a tree into one file, atomically.

    Args:
        path: the file, replaced as a whole or not at all.
        model: a model or its state dict, whose tensors keep their names. A file with no other
            tensors is what PyTorch loads strictly.
        optimizer: an optimizer or its state dict, tensors under `optimizer/…`.
        extra: further trees by name (epoch=3, scheduler=scheduler.state_dict()).

    Errors: TypeError that names the value which is no tree, ValueError for names that collide,
    each before anything is written; OSError from writing, which leaves the old file.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     save(f"{folder}/step.safetensors", epoch=3, momentum=np.ones(2))
    ...     load(f"{folder}/step.safetensors")
    {'epoch': 3, 'momentum': array([1., 1.])}
    """
    tree = dict(extra)
    for name, part in (("model", model), ("optimizer", optimizer)):
        if part is not None:
            tree[name] = part if isinstance(part, Mapping) else part.state_dict()
    tensors: dict[str, Array] = {}
    skeleton = {key: _take_apart(tree[key], key, tensors) for key in tree}
    # Widest elements first keeps every tensor aligned to its element size.
    names = sorted(tensors, key=lambda name: (-tensors[name].itemsize, name))
    header = _header(skeleton, {name: tensors[name] for name in names})
    with atomic_write(path) as file:
        file.write(len(header).to_bytes(8, "little"))
        file.write(header)
        for name in names:
            file.write(_bytes_of(tensors[name]))


def load(
    path: str | os.PathLike[str],
    model: Stateful | None = None,
    optimizer: Stateful | None = None,
) -> dict[str, Any]:
    """Read back the tree that `save` wrote, after every digest has been verified.

    Args:
        model, optimizer: where given, they take over their part of the file, both or neither.

    Returns: the tree, `model` and `optimizer` included, with fresh arrays. Memory: these arrays,
        and a copy of `model`.
    Errors: CheckpointError that names the file and what is damaged or missing; FileNotFoundError;
        what `load_state_dict` raises where file and model or optimizer do not match.
    """
    path = Path(path)
    tree = _read(path)
    for name, target in (("optimizer", optimizer), ("model", model)):
        if target is not None and name not in tree:
            raise CheckpointError(f"{path}: expected a file with '{name}', found {list(tree)}")
    if model is not None:
        before = {name: array.copy() for name, array in model.state_dict().items()}
        model.load_state_dict(tree["model"])
    if optimizer is not None:
        try:
            optimizer.load_state_dict(tree["optimizer"])
        except Exception:
            if model is not None:
                model.load_state_dict(before)
            raise
    return tree


def _take_apart(value: Any, place: str, tensors: dict[str, Array]) -> Any:
    """The JSON form of `value`; its arrays go into `tensors`, named by their place."""
    if isinstance(value, Mapping):
        items = [
            (key, _take_apart(item, _name(place, key), tensors)) for key, item in value.items()
        ]
        if all(isinstance(key, str) for key, _ in items):
            return {"dict": dict(items)}
        if all(isinstance(key, int) for key, _ in items):
            return {"items": items}
        raise TypeError(f"save: keys of '{place}' must be all strings or all integers")
    if isinstance(value, list | tuple):
        parts = [_take_apart(item, f"{place}/{i}", tensors) for i, item in enumerate(value)]
        return {"tuple": parts} if isinstance(value, tuple) else parts
    if isinstance(value, np.ndarray | np.generic):
        if value.dtype.name not in DTYPES:
            raise TypeError(
                f"save: '{place}' has dtype {value.dtype}, expected {', '.join(DTYPES)}"
            )
        if place == "__metadata__":
            raise ValueError("save: a tensor of a model cannot have the name '__metadata__'")
        if place in tensors:
            raise ValueError(f"save: two arrays would be named '{place}'")
        native = value.dtype.newbyteorder("<")
        tensors[place] = np.asarray(value, dtype=native, order="C")
        return {"tensor": place}
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(
        f"save: '{place}' is a {type(value).__name__}, expected arrays, numbers, strings, None, "
        "and dicts, lists or tuples of them"
    )


def _name(place: str, key: Any) -> str:
    return str(key) if place == "model" else f"{place}/{key}"


def _put_together(value: Any, tensors: Mapping[str, Array]) -> Any:
    """Inverse of `_take_apart`."""
    if isinstance(value, list):
        return [_put_together(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "tuple":
        return tuple(_put_together(item, tensors) for item in content)
    items = content.items() if kind == "dict" else content
    return {key: _put_together(item, tensors) for key, item in items}


def _bytes_of(array: Array) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _header(skeleton: dict[str, Any], tensors: dict[str, Array]) -> bytes:
    digests = {name: hashlib.sha256(_bytes_of(a)).hexdigest() for name, a in tensors.items()}
    manifest = {"format": FORMAT, "digests": digests, "tree": {"dict": skeleton}}
    metadata = {"header_sha256": NO_DIGEST, "thalweg": json.dumps(manifest)}
    header: dict[str, Any] = {"__metadata__": metadata}
    stop = 0
    for name, array in tensors.items():
        start, stop = stop, stop + array.nbytes
        header[name] = {
            "dtype": DTYPES[array.dtype.name],
            "shape": list(array.shape),
            "data_offsets": [start, stop],
        }
    # Digests depend on what they cover, so the header's own stands in a place of fixed width.
    text = json.dumps(header, separators=(",", ":")).encode()
    padded = text + b" " * (-len(text) % 8)
    digest = hashlib.sha256(padded).hexdigest()
    return padded.replace(NO_DIGEST.encode(), digest.encode(), 1)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            header, start = _read_header(path, file)
            manifest = json.loads(header["__metadata__"]["thalweg"])
            tensors = _read_tensors(path, file, header, start, manifest["digests"])
        tree: dict[str, Any] = _put_together(manifest["tree"], tensors)
    except CheckpointError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, RecursionError) as error:
        # Digests find accidents; a file forged around right digests ends here.
        raise CheckpointError(f"{path}: the manifest makes no sense: {error!r}") from error
    return tree


def _read_header(path: Path, file: BufferedReader) -> tuple[dict[str, Any], int]:
    """The verified header, and where the tensors' bytes start."""
    size = os.fstat(file.fileno()).st_size
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or not 0 < length <= min(size - 8, MAX_HEADER_BYTES):
        raise CheckpointError(
            f"{path}: expected a safetensors header, found a length of {length} bytes in a file "
            f"of {size}"
        )
    raw = file.read(length)
    try:
        header: dict[str, Any] = json.loads(raw)
        digest = header["__metadata__"]["header_sha256"].encode()
        known = "thalweg" in header["__metadata__"]
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: the header is damaged or not thalweg's (for other safetensors files use "
            f"model.load_state_dict(safetensors.numpy.load_file(path))): {error!r}"
        ) from error
    found = hashlib.sha256(raw.replace(digest, NO_DIGEST.encode(), 1)).hexdigest().encode()
    if found != digest or not known:
        raise CheckpointError(
            f"{path}: the header is damaged, expected SHA-256 {digest.decode()}, found "
            f"{found.decode()}"
        )
    _check_layout(path, header, size - 8 - length)
    return header, 8 + length


def _check_layout(path: Path, header: dict[str, Any], data_bytes: int) -> None:
    """A header can be whole and still lie: compare it with itself and with the file's length."""
    expected = max(
        (entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"),
        default=0,
    )
    if expected != data_bytes:
        raise CheckpointError(
            f"{path}: truncated or extended: expected {expected} bytes of tensors, "
            f"found {data_bytes}"
        )
    try:
        with safe_open(path, framework="np"):  # validates offsets, shapes and dtypes
            pass
    except SafetensorError as error:
        raise CheckpointError(f"{path}: no valid safetensors file: {error}") from error


def _read_tensors(
    path: Path, file: BufferedReader, header: dict[str, Any], start: int, digests: dict[str, str]
) -> dict[str, Array]:
    tensors: dict[str, Array] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        array = np.empty(entry["shape"], DTYPE_OF_CODE[entry["dtype"]])
        content = _bytes_of(array)
        file.seek(start + entry["data_offsets"][0])
        count = file.readinto(content)
        found = hashlib.sha256(content).hexdigest()
        if count != len(content) or found != digests.get(name):
            raise CheckpointError(
                f"{path}: tensor '{name}' is damaged, expected SHA-256 {digests.get(name)}, "
                f"found {found}"
            )
        tensors[name] = array
    return tensors
