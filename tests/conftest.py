"""Strict settings for every test; float32 unless a test asks for the `x64` fixture."""

import gc
import os

# Before anything can import matplotlib.
os.environ["MPLBACKEND"] = "Agg"

import hypothesis
import jax
import pytest

# Nearly all of the suite is compiling; unless told otherwise, without LLVM's passes,
# and where XLA still has them by its older emitters, in half of the time.
# In one piece: workers share the cores, and a module is copied to be cut up.
flags = "--xla_backend_optimization_level=0"
if jax.__version_info__ < (0, 11):
    flags += " --xla_cpu_use_fusion_emitters=false"
    flags += " --xla_cpu_parallel_codegen_split_count=1"
os.environ.setdefault("XLA_FLAGS", flags)

jax.config.update("jax_enable_x64", False)
jax.config.update("jax_numpy_rank_promotion", "raise")

# Tracing makes many short-lived objects: a twentieth of the suite went to finding them.
gc.freeze()
gc.set_threshold(100_000, 20, 100)

# The same examples in every run; the first one of a test compiles.
hypothesis.settings.register_profile(
    "suite", max_examples=40, deadline=None, derandomize=True, database=None
)
hypothesis.settings.load_profile("suite")


@pytest.fixture
def x64():
    """Run a test with 64-bit types: name it as an argument, or in `usefixtures`."""
    # Not jax.enable_x64, which jax 0.7.2 lacks.
    jax.config.update("jax_enable_x64", True)
    yield
    jax.config.update("jax_enable_x64", False)


@pytest.fixture
def no_key_reuse():
    """An error where a random key is used twice; not for all, as it slows tracing."""
    jax.config.update("jax_debug_key_reuse", True)
    jax.clear_caches()  # what is compiled has been checked already, or never
    yield
    jax.config.update("jax_debug_key_reuse", False)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Drop compiled programs: a process may map 65,530 pieces of memory on Linux."""
    yield
    jax.clear_caches()
