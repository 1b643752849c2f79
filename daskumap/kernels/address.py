"""Calls of a compiled kernel by its address, from within another one.

Numba would compile a kernel that is called by its name once more, into the one around it. LLVM then unrolls
its loops in another way, and sums have other bits (measured). What lies behind an address stays as it is.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic


def address_of(kernel: Any, arguments: tuple[Any, ...]) -> Any:
    """Return where the machine code of a kernel lies that takes such arguments, for `call`.

    The kernel has to outlive its use. Without the compiler it is the kernel itself.
    """
    if config.DISABLE_JIT:
        return kernel
    signature = tuple(map(kernel.typeof_pyval, arguments))
    kernel.compile(signature)  # which finds what is there
    made = kernel.overloads[signature]
    return made.library.get_pointer_to_function(made.fndesc.llvm_func_name)


@intrinsic
def _call(typingctx, address, arguments):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        kinds = tuple(signature.args[1])
        function = context.call_conv.get_function_type(types.none, kinds)
        at = builder.inttoptr(args[0], ir.PointerType(function))
        values = cgutils.unpack_tuple(builder, args[1])
        status, _ = context.call_conv.call_function(builder, at, types.none, kinds, values)
        with cgutils.if_unlikely(builder, status.is_error):
            context.call_conv.return_status_propagate(builder, status)
        return context.get_dummy_value()

    kinds = types.Tuple([types.unliteral(kind) for kind in arguments])
    return types.none(types.intp, kinds), code


def _call_python(address: Any, arguments: tuple[Any, ...]) -> None:
    address(*arguments)


# Call what lies at an address with a tuple of arguments, whose types have to be those it was compiled for.
call = _call_python if config.DISABLE_JIT else _call
