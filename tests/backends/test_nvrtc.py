"""Every kernel compiles to machine code for every architecture we name, without a GPU: by NVRTC from its wheel."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from backend_cases import CASES, Model, run
from emulator.engine import EmulatedEngine
from emulator.fake_cupy import FakeCupy

from mfakit.backends import cuda_ops, operations
from mfakit.backends._cuda import engine as _cuda_engine
from mfakit.backends._cuda import source as _cuda_source

# One that kernels were run on; all of them take a minute and more.
FEW, ARCHITECTURES = (90,), (75, 80, 90, 100, 120)
# (l0, l1) decide the one size that is known at compilation, of (d, k, l) = (784, 50, 6) and (12,288, 200, 10).
FACTORS = (6, 10)
REGISTERS = 65536  # of a block, on all of these architectures; a thread gets a multiple of 8


def _library() -> Path | None:
    spec = importlib.util.find_spec("nvidia")
    for root in spec.submodule_search_locations or [] if spec else []:
        for path in sorted(Path(root).glob("*/lib/libnvrtc.so.*")):
            if "builtins" not in path.name:
                return path
    return None


@cache
def _nvrtc() -> ctypes.CDLL:
    path = _library()
    if path is None:
        pytest.skip("needs NVRTC: pip install nvidia-cuda-nvrtc")
    return ctypes.CDLL(str(path))


class Compiled(NamedTuple):
    """Machine code, its assembly, and the compiler's log."""

    cubin: bytes
    ptx: str
    log: str


def _compile(source: str, options: list[str]) -> Compiled:
    """Fails the test where it does not compile."""
    nvrtc, program, size = _nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"mfakit.cu", 0, None, None) == 0
    try:
        encoded = [option.encode() for option in options]
        status = nvrtc.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        assert status == 0, log.value.decode()
        codes = []
        for result in ("CUBIN", "PTX"):
            assert nvrtc[f"nvrtcGet{result}Size"](program, ctypes.byref(size)) == 0
            codes.append(ctypes.create_string_buffer(size.value))
            assert nvrtc[f"nvrtcGet{result}"](program, codes[-1]) == 0
        return Compiled(codes[0].raw, codes[1].value.decode(), log.value.decode())
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _for(architecture: int, family: str, real: str, l: int) -> Compiled:
    sizes = _pair_sizes(l) if family == "subspace" else {}
    options = [*_cuda_source.definitions(real, **sizes), "-ftz=true", "--ptxas-options=-v"]  # CuPy adds -ftz
    return _compile(_cuda_source.flatten(family), [*options, f"-arch=sm_{architecture}"])


@cache
def _for_architectures(family: str, real: str, l: int, architectures: tuple[int, ...]) -> dict[int, Compiled]:
    """Of each architecture; the compiler runs in several threads."""
    _nvrtc()
    with ThreadPoolExecutor() as pool:
        codes = pool.map(lambda architecture: _for(architecture, family, real, l), architectures)
        return dict(zip(architectures, codes, strict=True))


def _pair_work(l: int) -> int:
    return -(-(2 * l * l + 2 * l + 1) // 32) * 32


class _Recorder(EmulatedEngine):
    """Takes any number of threads, notes the most of each kernel, and runs nothing."""

    def __init__(self) -> None:
        super().__init__(Path(), threads=1024)
        self.xp = FakeCupy(new_byte=0)  # nothing writes, and what follows a launch must not meet what memory held
        self.most: dict[str, int] = {}

    def launch(self, family: str, kernel: str, grid: Any, threads: int, args: Any, **rest: Any) -> None:
        self.most[kernel] = max(self.most.get(kernel, 0), threads)


@cache
def _launched() -> dict[str, int]:
    """The most threads of a block that the operations launch each kernel with, with few factors and many."""
    recorder = _Recorder()
    _cuda_engine.install(recorder)
    try:
        for operation in operations("cuda"):
            for l in (0, 10, 40):
                model = Model((5, 3, 90, l), "float64", "isotropic", seed=1)
                run(cuda_ops, operation, model, CASES[operation](model), engine=recorder)
    finally:
        _cuda_engine.install(None)
    return recorder.most


def _most_threads(kernel: str) -> int:
    """Of a block of the kernel; those that no operation of the table launches may have as many as any."""
    return _launched().get(kernel, cuda_ops.THREADS)


def _registers(log: str) -> dict[str, int]:
    """Of a thread, by kernel."""
    pattern = r"Compiling entry function '(\w+)'(?:(?!Compiling).)*?Used (\d+) registers"
    return {name: int(used) for name, used in re.findall(pattern, log, re.DOTALL)}


def _fits(registers: int, threads: int) -> bool:
    return -(-registers // 8) * 8 * threads <= REGISTERS


def _pair_sizes(l: int) -> dict[str, int]:
    return {"MFA_PAIR_WORK": _pair_work(l), "MFA_L1": l}


# Pairs of subspaces and the attack's state are float64 whatever the samples are; only the first know l at compilation.
# The variant in float64 takes more registers than the one in float32, and as long to compile.
VARIANTS = [
    pytest.param(family, real, l, marks=pytest.mark.slow if real == "float" and family in ("density", "pairs") else ())
    for family in _cuda_source.FAMILIES
    for real in (("double",) if family in ("subspace", "attack") else ("float", "double"))
    for l in (FACTORS if family == "subspace" else FACTORS[:1])
]


@pytest.mark.parametrize("architectures", [FEW, pytest.param(ARCHITECTURES, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("family", "real", "l"), VARIANTS)
def test_compiles_without_spills(family: str, real: str, l: int, architectures: tuple[int, ...]) -> None:
    names = _cuda_source.kernel_names(family)
    for architecture, (cubin, _, log) in _for_architectures(family, real, l, architectures).items():
        assert cubin.startswith(b"\x7fELF")
        for name in names:
            assert name.encode() in cubin
        spills = [int(n) for n in re.findall(r"(\d+) bytes spill", log)]
        assert len(spills) >= 2 * len(names), log
        assert not any(spills), f"sm_{architecture}: {log}"
        registers = _registers(log)
        assert set(registers) == set(names)
        for name, used in registers.items():
            threads = _most_threads(name)
            assert _fits(used, threads), f"sm_{architecture}: {name}: {used} registers of {threads} threads"


@pytest.mark.parametrize(("family", "real", "l"), VARIANTS)
def test_no_launch_exceeds_the_bounds_of_its_kernel(family: str, real: str, l: int) -> None:
    ptx = _for_architectures(family, real, l, FEW)[90].ptx
    bounds = dict(re.findall(r"\.entry (\w+)\([^)]*\)\s*(?:\.maxntid (\d+))?", ptx))
    assert set(bounds) == set(_cuda_source.kernel_names(family))
    assert ("refine_wide" in bounds) == (family == "pairs")
    assert {bounds.get(f"refine_{shape}", "256") for shape in cuda_ops.REFINE_SHAPES} == {str(cuda_ops.REFINE_THREADS)}
    for name, most in bounds.items():
        assert _most_threads(name) <= int(most or cuda_ops.THREADS), name


def test_a_block_too_large_would_be_seen() -> None:
    """What refinement once asked for: 152 registers and 16 warps."""
    assert not _fits(152, 512)
    assert _fits(128, 512)
    assert not _fits(129, 512)
    log = "Compiling entry function 'a' for 'sm_90'\n0 bytes spill\nUsed 9 registers, used 1 barriers\n"
    assert _registers(log + log.replace("'a'", "'b'").replace("9 r", "10 r")) == {"a": 9, "b": 10}
    assert _launched()["refine_wide"] == cuda_ops.REFINE_THREADS


def _local_memory_of_pairs(log: str) -> int:
    stack = re.search(r"properties for pairs_in_registers\n.* (\d+) bytes stack frame", log)
    assert stack is not None, log
    return int(stack[1])


@pytest.mark.parametrize("l", [10, cuda_ops.MOST_FACTORS_IN_REGISTERS])
def test_pairs_in_registers_have_no_local_memory(l: int) -> None:
    """Up to the most factors that cuda_ops launches it with."""
    for architecture, (_, _, log) in _for_architectures("subspace", "double", l, FEW).items():
        assert _local_memory_of_pairs(log) == 0, f"sm_{architecture}: {log}"


def test_local_memory_would_be_seen() -> None:
    assert _local_memory_of_pairs(_for(90, "subspace", "double", 16).log) > 0


def test_a_spill_would_be_seen() -> None:
    """With 24 registers for kernels that need 60 to 100 the compiler reports spills, and the test above would fail."""
    options = [*_cuda_source.definitions("double"), "-arch=sm_90", "--maxrregcount=24", "--ptxas-options=-v"]
    log = _compile(_cuda_source.flatten("pairs"), options).log
    assert any(int(n) for n in re.findall(r"(\d+) bytes spill", log))


def test_editing_any_header_changes_what_is_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    root = shutil.copytree(_cuda_source.source_root(), tmp_path / "csrc")
    monkeypatch.setattr(_cuda_source, "source_root", lambda: root)
    _cuda_source.flatten.cache_clear()
    before = {family: _cuda_source.flatten(family) for family in _cuda_source.FAMILIES}
    changed = set()
    headers = [*(root / "include" / "mfakit").glob("*.hpp"), *(root / "cuda").glob("*.cu*")]
    for header in headers:
        text = header.read_text()
        header.write_text(text + "// edited\n")
        _cuda_source.flatten.cache_clear()
        if any(_cuda_source.flatten(family) != before[family] for family in _cuda_source.FAMILIES):
            changed.add(header.name)
        header.write_text(text)
    monkeypatch.undo()
    _cuda_source.flatten.cache_clear()
    # The certificates have no kernel.
    host_only = {
        "boundary", "box_dual", "bracket", "certify", "cholesky", "crossing", "dual", "dual_ascent", "feature_ascent",
        "feature_dual", "feature_problem", "feature_roots", "local_problem", "low_rank", "quadric", "refine",
        "rounding", "secular", "slice_dual", "slices",
    }  # fmt: skip
    assert {header.name for header in headers} - changed == {f"{name}.hpp" for name in host_only}


def test_no_include_is_left_to_find() -> None:
    for family in _cuda_source.FAMILIES:
        assert '#include "' not in _cuda_source.flatten(family)
