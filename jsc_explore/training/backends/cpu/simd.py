"""SIMD vectors of float32 for Numba: loads, stores, arithmetic and transposes as vector instructions.

Numba leaves vectorization to LLVM, which must first prove in every loop that no two rows of an array overlap; for the
short loops of a small batch that takes longer than the arithmetic. Here the vector width is explicit: ``WIDTH`` lanes
are 16 with AVX-512, 8 with AVX2 and 4 elsewhere; LLVM maps the operations to the instructions of the machine.

Memory is accessed by the ``address`` of a C-contiguous array and an offset in elements, without bounds checks. An
address does not count as a reference to its array: reference counting, an atomic operation per array and call, took a
third of the time of a small step. The caller must keep the array alive.
"""

# Numba and llvmlite are untyped.
# mypy: disable-error-code="import-untyped, no-untyped-call"

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel.models import PrimitiveModel
from numba.extending import intrinsic, lower_builtin, register_model, type_callable

_FEATURES = llvm.get_host_cpu_features()
WIDTH = 16 if _FEATURES.get("avx512f") else 8 if _FEATURES.get("avx2") else 4
# Number of features of a jet.
ROW = 16

FLOAT, INT = ir.FloatType(), ir.IntType(32)
VECTOR, INTEGERS = ir.VectorType(FLOAT, WIDTH), ir.VectorType(INT, WIDTH)
# Sums may be reordered and contracted to fused multiply-adds; NaN and infinity are preserved.
FAST = ("contract", "reassoc")


class Vector(types.Type):
    """The Numba type of ``WIDTH`` float32 values in a register."""

    def __init__(self) -> None:
        super().__init__(f"vector{WIDTH}f32")


class Mask(types.Type):
    """The Numba type of ``WIDTH`` comparisons."""

    def __init__(self) -> None:
        super().__init__(f"mask{WIDTH}")


vector, mask = Vector(), Mask()


@register_model(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


@register_model(Mask)
class _MaskModel(PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.VectorType(ir.IntType(1), WIDTH))


def _constant(value: float) -> ir.Constant:
    return ir.Constant(VECTOR, [ir.Constant(FLOAT, value)] * WIDTH)


def _integers(value: int) -> ir.Constant:
    return ir.Constant(INTEGERS, [ir.Constant(INT, value)] * WIDTH)


def _pointer(builder: Any, start: Any, offset: Any, to: ir.Type) -> Any:
    return builder.bitcast(builder.gep(start, [offset]), to.as_pointer())


def call_intrinsic(builder: Any, name: str, result: ir.Type, arguments: Sequence[Any], fast: Sequence[str] = ()) -> Any:
    """Build a call of an LLVM intrinsic; ``fast`` are its fast-math flags."""
    kinds = [argument.type for argument in arguments]
    function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(result, kinds), name)
    return builder.call(function, arguments, fastmath=fast)


def _define_operator(operator_: Any, arguments: Sequence[Any], result: Any, build: Callable[..., Any]) -> None:
    """Define a Python operator for these argument types."""

    @type_callable(operator_)
    def typer(_context: Any) -> Any:
        def typed(*given: Any) -> Any:
            return result if tuple(given) == tuple(arguments) else None

        # Numba takes the number of arguments from the signature.
        return (lambda a, b: typed(a, b)) if len(arguments) == 2 else (lambda a: typed(a))

    lower_builtin(operator_, *arguments)(lambda context, builder, signature, args: build(builder, *args))


for _operator, _method in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _define_operator(_operator, (vector, vector), vector, lambda b, x, y, m=_method: getattr(b, m)(x, y, flags=FAST))
_define_operator(operator.truediv, (vector, vector), vector, lambda b, x, y: b.fdiv(x, y))
_define_operator(operator.gt, (vector, vector), mask, lambda b, x, y: b.fcmp_ordered(">", x, y))
_define_operator(operator.eq, (vector, vector), mask, lambda b, x, y: b.fcmp_ordered("==", x, y))


@intrinsic
def address(typing: Any, array: Any) -> Any:
    """Return the address of the first value of an array."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return context.make_array(signature.args[0])(context, builder, args[0]).data

    return types.CPointer(array.dtype)(array), build


@intrinsic
def item(typing: Any, start: Any, offset: Any) -> Any:
    """Return the value at an offset."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(builder.gep(args[0], [args[1]]))

    return start.dtype(start, types.intp), build


@intrinsic
def put(typing: Any, start: Any, offset: Any, value: Any) -> Any:
    """Write a value at an offset."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], builder.gep(args[0], [args[1]]))
        return context.get_dummy_value()

    return types.void(start, types.intp, start.dtype), build


@intrinsic
def load(typing: Any, array: Any, offset: Any) -> Any:
    """Return ``array[offset : offset + WIDTH]``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(builder, args[0], args[1], VECTOR), align=4)

    return vector(array, types.intp), build


@intrinsic
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write ``array[offset : offset + WIDTH] = value``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(builder, args[0], args[1], VECTOR), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, vector), build


@intrinsic
def prefetch(typing: Any, array: Any, offset: Any) -> Any:
    """Prefetch the cache line of ``array[offset]``."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        byte = ir.IntType(8)
        where = _pointer(builder, args[0], args[1], byte)
        call_intrinsic(builder, "llvm.prefetch.p0", ir.VoidType(), [where, INT(0), INT(3), INT(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), build


@intrinsic
def splat(typing: Any, value: Any) -> Any:
    """Return a vector with the float32 ``value`` in every lane."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), args[0], INT(0))
        return builder.shuffle_vector(first, first, ir.Constant(INTEGERS, [0] * WIDTH))

    return vector(types.float32), build


@intrinsic
def load_splat(typing: Any, array: Any, offset: Any) -> Any:
    """Return a vector with ``array[offset]`` in every lane."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_pointer(builder, args[0], args[1], FLOAT))
        first = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), value, INT(0))
        return builder.shuffle_vector(first, first, ir.Constant(INTEGERS, [0] * WIDTH))

    return vector(array, types.intp), build


@intrinsic
def lane_indices(typing: Any) -> Any:
    """Return the vector 0, 1, 2, … of lane indices."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(VECTOR, [ir.Constant(FLOAT, float(lane)) for lane in range(WIDTH)])

    return vector(), build


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """Return ``a * b + c`` with one rounding."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call_intrinsic(builder, f"llvm.fma.v{WIDTH}f32", VECTOR, args)

    return vector(vector, vector, vector), build


@intrinsic
def sqrt(typing: Any, a: Any) -> Any:
    """Return the square root of each lane."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return call_intrinsic(builder, f"llvm.sqrt.v{WIDTH}f32", VECTOR, args)

    return vector(vector), build


@intrinsic
def select(typing: Any, condition: Any, a: Any, b: Any) -> Any:
    """Return the lanes of ``a`` where the condition holds, those of ``b`` elsewhere."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(*args)

    return vector(mask, vector, vector), build


@intrinsic
def reduce_add(typing: Any, a: Any) -> Any:
    """Return the sum of the lanes, a float32."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        start = ir.Constant(FLOAT, -0.0)
        return call_intrinsic(builder, f"llvm.vector.reduce.fadd.v{WIDTH}f32", FLOAT, [start, args[0]], FAST)

    return types.float32(vector), build


@intrinsic
def exp(typing: Any, a: Any) -> Any:
    """Return e to the power of each lane, with an error below 2 units in the last place; NaN stays NaN.

    As expf of Cephes: the argument is a multiple of ln 2 plus a rest, whose exponential is a polynomial of degree 6.
    """
    polynomial = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 5.0000001201e-1)

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def fma(x: Any, y: Any, z: Any) -> Any:
            return call_intrinsic(builder, f"llvm.fma.v{WIDTH}f32", VECTOR, [x, y, z])

        x = args[0]
        # Ordered comparisons are false for NaN, so that NaN passes both.
        for bound, sign in ((88.0, ">"), (-87.0, "<")):
            x = builder.select(builder.fcmp_ordered(sign, x, _constant(bound)), _constant(bound), x)
        scaled = builder.fmul(x, _constant(1.4426950408889634))
        whole = call_intrinsic(builder, f"llvm.rint.v{WIDTH}f32", VECTOR, [scaled])
        rest = fma(whole, _constant(-0.693359375), x)
        rest = fma(whole, _constant(2.12194440e-4), rest)
        value = _constant(polynomial[0])
        for coefficient in polynomial[1:]:
            value = fma(value, rest, _constant(coefficient))
        value = fma(value, builder.fmul(rest, rest), builder.fadd(rest, _constant(1.0)))
        # Adding 1.5 · 2^23 moves the integer to the lowest bits; shifted by 23, it is the exponent of a power of two.
        shifted = builder.bitcast(builder.fadd(whole, _constant(12582912.0 + 127.0)), INTEGERS)
        bits = builder.shl(shifted, _integers(23))
        return builder.fmul(value, builder.bitcast(bits, VECTOR))

    return vector(vector), build


@intrinsic
def log(typing: Any, a: Any) -> Any:
    """Return the natural logarithm of each lane, for finite values of at least the smallest normal number.

    As logf of Cephes: the argument is a power of two times a rest near one.
    """
    polynomial = [7.0376836292e-2, -1.1514610310e-1, 1.1676998740e-1, -1.2420140846e-1, 1.4249322787e-1]
    polynomial += [-1.6668057665e-1, 2.0000714765e-1, -2.4999993993e-1, 3.3333331174e-1]

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        def fma(x: Any, y: Any, z: Any) -> Any:
            return call_intrinsic(builder, f"llvm.fma.v{WIDTH}f32", VECTOR, [x, y, z])

        bits = builder.bitcast(args[0], INTEGERS)
        power = builder.sub(builder.ashr(bits, _integers(23)), _integers(126))
        half = builder.or_(builder.and_(bits, _integers(0x007FFFFF)), _integers(0x3F000000))
        rest = builder.bitcast(half, VECTOR)
        small = builder.fcmp_ordered("<", rest, _constant(0.70710678118))
        exponent = builder.fsub(builder.sitofp(power, VECTOR), builder.select(small, _constant(1.0), _constant(0.0)))
        rest = builder.fsub(builder.fadd(rest, builder.select(small, rest, _constant(0.0))), _constant(1.0))
        square = builder.fmul(rest, rest)
        value = _constant(polynomial[0])
        for coefficient in polynomial[1:]:
            value = fma(value, rest, _constant(coefficient))
        value = builder.fmul(builder.fmul(value, rest), square)
        value = fma(exponent, _constant(-2.12194440e-4), value)
        value = fma(square, _constant(-0.5), value)
        value = fma(exponent, _constant(0.693359375), builder.fadd(rest, value))
        unordered = builder.fcmp_unordered("uno", args[0], args[0])
        return builder.select(unordered, args[0], value)

    return vector(vector), build
