"""What surrounds every primitive: autocast, mixed dtypes, function transforms, second derivatives and torch.compile.

A backend computes in the dtypes of its arguments and defines one first derivative by hand. What a caller may combine it with is
decided here, for all backends: autocast is off inside, forward and backward; arguments of several dtypes are promoted; under
transforms that a hand-written derivative cannot take part in, the reference backend computes; a second derivative is an error,
never a part that is silently missing; torch.compile leaves a primitive as it is.
"""

import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack

Call = TypeVar("Call", bound=Callable[..., Any])
TWICE = (
    "a second derivative through {} is not computed: set DISTSEQ_KERNELS=reference, whose loops can be differentiated any number "
    "of times"
)
OPAQUE = "a primitive of distseq.kernels is called as it is: use torch.compile without fullgraph"


def primitive(function: Call) -> Call:
    """A public primitive, computed without autocast and left out of torch.compile's graphs."""
    found: list[Any] = []  # the function, disabled for dynamo; made once dynamo is there

    @wraps(function)
    def bordered(*args: Any, **options: Any) -> Any:
        # Looked up, not imported: importing dynamo takes a second, and without it nothing is compiled.
        if not found and "torch._dynamo" in sys.modules:
            found.append(sys.modules["torch._dynamo"].disable(function))
        first = next((each for each in (*args, *options.values()) if isinstance(each, Tensor)), None)
        with without_autocast(first):
            return (found[0] if found else function)(*args, **options)

    # What dynamo looks for when it meets a call while it traces; the message is part of its error under fullgraph=True.
    bordered._torchdynamo_disable = True  # type: ignore[attr-defined]
    bordered._torchdynamo_disable_msg = OPAQUE  # type: ignore[attr-defined]
    return bordered  # type: ignore[return-value]


def without_autocast(like: Any) -> AbstractContextManager[Any]:
    """A context in which autocast of that tensor's device is off."""
    kind = like.device.type if isinstance(like, Tensor) else "cpu"
    return torch.autocast(kind, enabled=False) if torch.is_autocast_enabled(kind) else nullcontext()


def promoted(*tensors: Tensor | None) -> list[Any]:
    """The tensors in the dtype that torch promotes theirs to; as they are if they have one dtype.

    Where autocast makes some half and leaves others float32, a primitive would otherwise multiply the two.
    """
    dtypes = {each.dtype for each in tensors if isinstance(each, Tensor)}
    # What is no number is left to the check of layouts, whose message names the argument.
    if len(dtypes) < 2 or not all(dtype.is_floating_point for dtype in dtypes):
        return list(tensors)
    widest = dtypes.pop()
    for dtype in dtypes:
        widest = torch.promote_types(widest, dtype)
    return [None if each is None else each.to(widest) for each in tensors]


def transformed() -> bool:
    """Whether a derivative of torch.func is taken inside a vmap (per-sample gradients), or in forward mode.

    A hand-written backward pass is not made of operations that could be mapped, and there is no hand-written forward mode.
    """
    # None outside of any transform, which torch's own types do not say.
    kinds = [each.key() for each in get_interpreter_stack() or ()]
    grads = [at for at, kind in enumerate(kinds) if kind == TransformType.Grad]
    mapped = TransformType.Vmap in kinds and bool(grads) and kinds.index(TransformType.Vmap) < grads[-1]
    return mapped or TransformType.Jvp in kinds


def once(backward: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for the backward of an autograd function that is differentiable once: a second derivative is an error.

    torch's once_differentiable raises only where the incoming gradient depends on what is differentiated. Where just the saved
    tensors do, as in a gradient penalty or `autograd.grad(grad . v)`, it leaves their part out without a word. So what a
    gradient is returned with here depends on the saved tensors: among these must be, for each input, the input or a
    differentiable output.
    """

    @wraps(backward)
    def guarded(ctx: Any, *grads: Any) -> Any:
        first = next((each for each in grads if isinstance(each, Tensor)), None)
        # Of backward too: it often runs inside the caller's autocast.
        with torch.no_grad(), without_autocast(first):
            found = backward(ctx, *grads)
        # Grad mode is on in backward only under create_graph=True.
        if not torch.is_grad_enabled():
            return found
        tied = [each for each in (*ctx.saved_tensors, *grads) if isinstance(each, Tensor) and each.requires_grad]
        name = type(ctx).__name__.strip("_").removesuffix("Backward")
        computed = [each for each in found if each is not None]
        guarded_grads = iter(_Once.apply(name, len(tied), *tied, *computed))
        return tuple(None if each is None else next(guarded_grads) for each in found)

    return guarded


class _Once(torch.autograd.Function):
    """Returns the gradients behind `count` tensors that they depend on; its backward raises."""

    generate_vmap_rule = True

    @staticmethod
    def forward(name: str, count: int, *tensors: Tensor) -> tuple[Tensor, ...]:
        return tuple(each.detach() for each in tensors[count:])

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        ctx.name = inputs[0]

    @staticmethod
    def backward(ctx: Any, *_: Any) -> Any:
        raise RuntimeError(TWICE.format(ctx.name))
