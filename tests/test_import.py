"""`import thalweg` is light: NumPy and nothing else that is heavy or optional."""

from __future__ import annotations

import subprocess
import sys

OPTIONAL = ["mpi4py", "matplotlib", "sklearn", "tqdm", "torch", "cupy", "scipy", "safetensors"]

CODE = """
import sys

class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ImportError(name + " is blocked")

sys.meta_path.insert(0, Block())
import thalweg as tw

model = tw.nn.Sequential(tw.nn.Linear(3, 2), tw.nn.ReLU())
optimizer = tw.optim.Adam(model.parameters())
model(tw.ones(4, 3)).sum().backward()
optimizer.step()
print("trained")
"""


def test_import_and_a_step_need_only_numpy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", CODE.format(blocked=set(OPTIONAL) - {"safetensors"})],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "trained\n", done.stderr


def test_import_loads_no_optional_module() -> None:
    code = f"import sys, thalweg; print([m for m in {OPTIONAL!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
