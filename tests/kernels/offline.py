"""Compiles the launches of an entry of COMPILED for an H100 instead of running them, and prints what each kernel takes of it.

python -m tests.kernels.offline rnn-lstm-64-bfloat16
"""

import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

from distseq.kernels import primitives
from tests.kernels.comparing import drawn, gradients
from tests.kernels.triton_cases import CASES, COMPILED, Launch
from tests.kernels.triton_tools import Resources

TOOLS = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
SHORT = {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32", torch.int32: "i32"}


def build(kernel: Any, arguments: dict[str, Any], options: dict[str, Any]) -> Resources:
    """As Triton would for these arguments: it knows a number that is 1, and what is a multiple of 16."""
    signature, constants, attributes = {}, {}, {}
    for at, parameter in enumerate(kernel.params):
        name, value = parameter.name, arguments[parameter.name]
        if parameter.is_constexpr or value is None or (isinstance(value, int) and value == 1):
            signature[name], constants[(at,)] = "constexpr", value
            continue
        signature[name] = "*" + SHORT[value.dtype] if isinstance(value, torch.Tensor) else "i32"
        if isinstance(value, torch.Tensor) or value % 16 == 0:
            attributes[(at,)] = [["tt.divisibility", 16]]
    source = ASTSource(kernel, signature, constants, attributes)
    built = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    return Resources(shared=built.metadata.shared, **read(built.asm["cubin"]))


def read(cubin: bytes) -> dict[str, int]:
    """Registers, stack, and the most barriers in the body of one loop."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "kernel.cubin")
        path.write_bytes(cubin)
        usage, code = (
            subprocess.run([TOOLS / "cuobjdump", option, path], text=True, capture_output=True, check=True).stdout
            for option in ("-res-usage", "-sass")
        )
    sizes = dict(re.findall(r"(REG|STACK):(\d+)", usage))
    lines = [(int(at, 16), text) for at, text in re.findall(r"/\*([0-9a-f]{4,})\*/\s+(.*?);", code)]
    jumps = [(int(to, 16), at) for at, text in lines for to in re.findall(r"\bBRA\b.* 0x([0-9a-f]+)", text)]
    barriers = [at for at, text in lines if "BAR.SYNC" in text]
    worst = max((sum(begin <= at <= end for at in barriers) for begin, end in jumps if begin < end), default=0)
    return {"registers": int(sizes["REG"]), "stack": int(sizes["STACK"]), "barriers": worst}


def kernels(launch: Launch) -> dict[str, dict[str, int]]:
    """Kernel with its flags -> the most it takes, of a forward and a backward in which nothing is computed."""
    found: dict[str, dict[str, int]] = {}

    def run(kernel: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        names = [parameter.name for parameter in kernel.params]
        defaults = {parameter.name: parameter.default for parameter in kernel.params if parameter.has_default}
        options = {key: value for key, value in kwargs.items() if key not in names}
        arguments = {**defaults, **dict(zip(names, args, strict=False)), **kwargs}
        taken = asdict(build(kernel, arguments, options))
        flags = "".join(f" {key}" for key, value in arguments.items() if value is True)
        name = kernel.fn.__name__ + flags
        found[name] = {key: max(value, found.get(name, taken)[key]) for key, value in taken.items()}

    JITFunction.run = run
    torch.set_float32_matmul_precision("highest" if launch.exact else "high")
    primitives.choose = lambda *_: "triton"
    case = CASES[launch.case]
    gradients(case, drawn(case, launch.B, launch.T, launch.H, launch.D, dtype=launch.dtype))
    return found


if __name__ == "__main__":
    for each in COMPILED:
        if each.case == sys.argv[1]:
            print(each, json.dumps(kernels(each)), flush=True)
