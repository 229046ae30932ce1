"""Calls of linear algebra in a program from elsewhere: as JAX writes them, or refused."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest
from jax.export import export
from jax.interpreters import mlir
from jaxlib import _jax
from jaxlib.mlir import ir

from jaxnas.train.portable import refusal

PLATFORMS = ("cpu", "cuda", "tpu")


def exported(f, *shape, platforms=PLATFORMS):
    return export(jax.jit(f), platforms=platforms)(jax.ShapeDtypeStruct(shape, jnp.float32))


def forged(program, old, new):
    """A program with other words in its text."""
    text = program.mlir_module()
    assert old in text
    with mlir.make_ir_context() as context, ir.Location.unknown(context):
        module = ir.Module.parse(text.replace(old, new))
        data = _jax.mlir.serialize_portable_artifact(module, "1.0.0", True)
    return dataclasses.replace(program, mlir_module_serialized=data)


@pytest.mark.parametrize("platforms", [PLATFORMS, ("cpu",), ("cuda",), ("tpu",)])
@pytest.mark.parametrize("shape", [(5, 3), (3, 5), (2, 4, 4)])
def test_orthogonal_weights_are_let_through(shape, platforms):
    assert refusal(exported(jnp.linalg.qr, *shape, platforms=platforms)) is None


@pytest.mark.parametrize("f", [jnp.linalg.eigh, jnp.linalg.svd, jnp.linalg.inv])
def test_what_no_initialiser_needs_is_refused(f):
    assert "outside of XLA" in refusal(exported(f, 3, 3))


FORGERIES = {
    "a result too short": ("tensor<3xf32>", "tensor<2xf32>"),
    "a result too long": ("tensor<3xf32>", "tensor<9xf32>"),
    "a layout": ("operand_layouts = [dense<[0, 1]>", "operand_layouts = [dense<[1, 0]>"),
    "a setting": ("mhlo.backend_config = {}", "mhlo.backend_config = {mode = 65 : ui8}"),
    "axes of a batch": ('num_batch_dims = "0"', 'num_batch_dims = "1"'),
    "the library": ("lapack_sorgqr_ffi", "lapack_sgesdd_ffi"),
    "one in double precision": ("lapack_sgeqrf_ffi", "lapack_dgeqrf_ffi"),
    "a host callback": ("lapack_sorgqr_ffi", "xla_ffi_python_cpu_callback"),
    "a name with quotes": ("@lapack_sorgqr_ffi", '@"lapack sorgqr"'),
    "more after a place": ('num_batch_dims = "0"', 'num_batch_dims = "0", more = " loc(#loc)"'),
}


@pytest.mark.parametrize("what", FORGERIES)
def test_calls_that_are_not_as_jax_writes_them_are_refused(what):
    honest = exported(jnp.linalg.qr, 5, 3, platforms=("cpu",))
    assert refusal(forged(honest, "main", "main")) is None
    said = refusal(forged(honest, *FORGERIES[what]))
    assert "outside of XLA" in said or "not known" in said
