"""The counting kernel compiled by LLVM (llvmlite) from the text below.

The same loop in numba is as fast but costs 0.7 s and 130 MB for importing and compiling; this costs 0.1 s.
The call goes through ctypes and releases the GIL, so it runs beside inference in another thread. Nothing is
written to disk.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from edgeq.calibration.kernels import BUCKETS, LANES, Extremes, Kernel, Lanes, Values, numpy_kernel

_WIDTH: Final = 8  # values per step: the vector width of the extremes, a multiple of LANES
_BLOCK: Final = 2048  # values that stay in the L1 cache between counting and the search for extremes


class CannotCompileError(Exception):
    """LLVM is not there, or cannot make machine code on this machine."""


@functools.cache
def compiled_kernel() -> Kernel:
    """The compiled kernel.

    Raises:
        CannotCompileError: see there.
    """
    count, engine = _compile()

    def kernel(values: Values, lanes: Lanes, engine: Any = engine) -> Extremes:
        # The machine code lives as long as its engine.
        if values.size < _WIDTH:
            return numpy_kernel(values, lanes)
        found = np.empty(3, np.uint32)
        count(values.ctypes.data, values.size, lanes.ctypes.data, found.ctypes.data)
        return _floats(*found.tolist())

    return kernel


def _floats(signed_top: int, lowest: int, highest: int) -> Extremes:
    """Smallest and largest float32 from the extremes of the bit patterns.

    The patterns of positive floats are ordered like the floats, also as signed integers. As unsigned integers
    all negative floats lie above them, ordered backwards.
    """
    largest = signed_top if signed_top < 1 << 31 else lowest
    smallest = highest if highest >= 1 << 31 else lowest
    low, high = np.array([smallest, largest], np.uint32).view(np.float32).tolist()
    return low, high


def _compile() -> tuple[Callable[..., None], Any]:
    try:
        import llvmlite.binding as llvm

        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
        machine = llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3
        )
        module = llvm.parse_assembly(_program())
        engine = llvm.create_mcjit_compiler(module, machine)
        engine.finalize_object()
    except (ImportError, RuntimeError, OSError) as error:
        raise CannotCompileError(str(error)) from error
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p, ctypes.c_void_p)
    return kind(engine.get_function_address("count")), engine


def _program() -> str:
    lanes = "\n".join(_increment(i) for i in range(LANES))
    return _TEMPLATE.format(lanes=lanes, LANES=LANES, WIDTH=_WIDTH, BLOCK=_BLOCK)


def _increment(lane: int) -> str:
    """``table[lane][bits[i + lane] >> 16] += 1``."""
    return f"""
  %place{lane} = add nuw i64 %i, {lane}
  %from{lane} = getelementptr i32, ptr %bits, i64 %place{lane}
  %bits{lane} = load i32, ptr %from{lane}, align 4
  %key{lane} = lshr i32 %bits{lane}, 16
  %index{lane} = add nuw i32 %key{lane}, {lane * BUCKETS}
  %wide{lane} = zext i32 %index{lane} to i64
  %counter{lane} = getelementptr i32, ptr %table, i64 %wide{lane}
  %old{lane} = load i32, ptr %counter{lane}, align 4
  %new{lane} = add i32 %old{lane}, 1
  store i32 %new{lane}, ptr %counter{lane}, align 4"""


# count(bits, n, table, found): n is at least WIDTH; found = {signed maximum, unsigned minimum, unsigned
# maximum} of all bit patterns. Block by block, first the counting (it waits for memory), then the extremes.
# The last n % WIDTH values are counted one by one; their extremes come from a vector that overlaps the one
# before.
_TEMPLATE: Final = """
declare <{WIDTH} x i32> @llvm.smax.v{WIDTH}i32(<{WIDTH} x i32>, <{WIDTH} x i32>)
declare <{WIDTH} x i32> @llvm.umin.v{WIDTH}i32(<{WIDTH} x i32>, <{WIDTH} x i32>)
declare <{WIDTH} x i32> @llvm.umax.v{WIDTH}i32(<{WIDTH} x i32>, <{WIDTH} x i32>)
declare i32 @llvm.vector.reduce.smax.v{WIDTH}i32(<{WIDTH} x i32>)
declare i32 @llvm.vector.reduce.umin.v{WIDTH}i32(<{WIDTH} x i32>)
declare i32 @llvm.vector.reduce.umax.v{WIDTH}i32(<{WIDTH} x i32>)

define void @count(ptr noalias %bits, i64 %n, ptr noalias %table, ptr noalias %found) nounwind {{
entry:
  %whole = and i64 %n, -{WIDTH}
  %overlap = sub i64 %n, {WIDTH}
  %last = getelementptr i32, ptr %bits, i64 %overlap
  %first = load <{WIDTH} x i32>, ptr %last, align 4
  br label %block

block:
  %start = phi i64 [0, %entry], [%stop, %end]
  %top.in = phi <{WIDTH} x i32> [%first, %entry], [%top, %end]
  %low.in = phi <{WIDTH} x i32> [%first, %entry], [%low, %end]
  %high.in = phi <{WIDTH} x i32> [%first, %entry], [%high, %end]
  %full = add nuw i64 %start, {BLOCK}
  %short = icmp ult i64 %whole, %full
  %stop = select i1 %short, i64 %whole, i64 %full
  br label %counting

counting:
  %i = phi i64 [%start, %block], [%i.next, %counting]
  {lanes}
  %i.next = add nuw i64 %i, {LANES}
  %i.more = icmp ult i64 %i.next, %stop
  br i1 %i.more, label %counting, label %extremes

extremes:
  %j = phi i64 [%start, %counting], [%j.next, %extremes]
  %top.old = phi <{WIDTH} x i32> [%top.in, %counting], [%top, %extremes]
  %low.old = phi <{WIDTH} x i32> [%low.in, %counting], [%low, %extremes]
  %high.old = phi <{WIDTH} x i32> [%high.in, %counting], [%high, %extremes]
  %at = getelementptr i32, ptr %bits, i64 %j
  %now = load <{WIDTH} x i32>, ptr %at, align 4
  %top = call <{WIDTH} x i32> @llvm.smax.v{WIDTH}i32(<{WIDTH} x i32> %top.old, <{WIDTH} x i32> %now)
  %low = call <{WIDTH} x i32> @llvm.umin.v{WIDTH}i32(<{WIDTH} x i32> %low.old, <{WIDTH} x i32> %now)
  %high = call <{WIDTH} x i32> @llvm.umax.v{WIDTH}i32(<{WIDTH} x i32> %high.old, <{WIDTH} x i32> %now)
  %j.next = add nuw i64 %j, {WIDTH}
  %j.more = icmp ult i64 %j.next, %stop
  br i1 %j.more, label %extremes, label %end

end:
  %done = icmp uge i64 %stop, %whole
  br i1 %done, label %rest, label %block

rest:
  %r = phi i64 [%whole, %end], [%r.next, %one]
  %r.more = icmp ult i64 %r, %n
  br i1 %r.more, label %one, label %exit

one:
  %r.from = getelementptr i32, ptr %bits, i64 %r
  %r.bits = load i32, ptr %r.from, align 4
  %r.key = lshr i32 %r.bits, 16
  %r.index = zext i32 %r.key to i64
  %r.counter = getelementptr i32, ptr %table, i64 %r.index
  %r.old = load i32, ptr %r.counter, align 4
  %r.new = add i32 %r.old, 1
  store i32 %r.new, ptr %r.counter, align 4
  %r.next = add nuw i64 %r, 1
  br label %rest

exit:
  %a = call i32 @llvm.vector.reduce.smax.v{WIDTH}i32(<{WIDTH} x i32> %top)
  %b = call i32 @llvm.vector.reduce.umin.v{WIDTH}i32(<{WIDTH} x i32> %low)
  %c = call i32 @llvm.vector.reduce.umax.v{WIDTH}i32(<{WIDTH} x i32> %high)
  %found1 = getelementptr i32, ptr %found, i64 1
  %found2 = getelementptr i32, ptr %found, i64 2
  store i32 %a, ptr %found, align 4
  store i32 %b, ptr %found1, align 4
  store i32 %c, ptr %found2, align 4
  ret void
}}
"""
