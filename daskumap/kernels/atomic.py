"""Counters that threads of one process share: what a thread wrote before it counted, others see after.

Numba has none for processors, so these are the instructions of LLVM.
"""

import threading
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import config, types
from numba.core import cgutils
from numba.extending import intrinsic


def _place(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    kind = signature.args[0]
    counters = context.make_array(kind)(context, builder, args[0])
    return cgutils.get_item_pointer(context, builder, kind, counters, [args[1]])


@intrinsic
def _count(typingctx, counters, at):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        one = ir.Constant(ir.IntType(64), 1)
        return builder.atomic_rmw("add", _place(context, builder, signature, args), one, "seq_cst")

    return types.int64(counters, types.intp), code


@intrinsic
def _counted(typingctx, counters, at):  # type: ignore[no-untyped-def]
    def code(context, builder, signature, args):  # type: ignore[no-untyped-def]
        return builder.load_atomic(_place(context, builder, signature, args), "seq_cst", 8)

    return types.int64(counters, types.intp), code


_lock = threading.Lock()


def _count_in_python(counters: Any, at: Any) -> Any:
    with _lock:
        counters[at] += 1
        return counters[at] - 1


def _counted_in_python(counters: Any, at: Any) -> Any:
    return counters[at]


# Of an int64 array and a place in it: add one and return what was there, and return what is there.
count, counted = (_count_in_python, _counted_in_python) if config.DISABLE_JIT else (_count, _counted)
