"""Every kernel compiles to machine code for every architecture we name, without a GPU: by NVRTC from its wheel."""

from __future__ import annotations

import ctypes
import importlib.util
import re
from functools import cache
from pathlib import Path

import pytest

from mfakit.backends import _cuda_source

ARCHITECTURES = (75, 80, 90, 100, 120)
# (l0, l1) decide the one size that is known at compilation, of (d, k, l) = (784, 50, 6) and (12,288, 200, 10).
FACTORS = (6, 10)


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


def _compile(source: str, options: list[str]) -> tuple[bytes, str]:
    """Machine code and the compiler's log; fails the test where it does not compile."""
    nvrtc, program, size = _nvrtc(), ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"mfakit.cu", 0, None, None) == 0
    try:
        encoded = [option.encode() for option in options]
        status = nvrtc.nvrtcCompileProgram(program, len(encoded), (ctypes.c_char_p * len(encoded))(*encoded))
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
        assert status == 0, log.value.decode()
        assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
        cubin = ctypes.create_string_buffer(size.value)
        assert nvrtc.nvrtcGetCUBIN(program, cubin) == 0
        return cubin.raw, log.value.decode()
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _pair_work(l: int) -> int:
    return -(-(2 * l * l + 3 * l + 1) // 32) * 32


# Pairs of subspaces and the attack's state are float64 whatever the samples are.
VARIANTS = [
    (family, real)
    for family in _cuda_source.FAMILIES
    for real in (("double",) if family in ("subspace", "attack") else ("float", "double"))
]


@pytest.mark.parametrize(("family", "real"), VARIANTS)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_compiles_without_spills(architecture: int, family: str, real: str) -> None:
    for l in FACTORS if family == "subspace" else FACTORS[:1]:
        sizes = {"MFA_PAIR_WORK": _pair_work(l)} if family == "subspace" else {}
        options = [
            *_cuda_source.definitions(real, **sizes),
            f"-arch=sm_{architecture}",
            "-ftz=true",
        ]  # CuPy adds the last
        cubin, log = _compile(_cuda_source.flatten(family), [*options, "--ptxas-options=-v"])
        assert cubin.startswith(b"\x7fELF")
        for name in _cuda_source.kernel_names(family):
            assert name.encode() in cubin
        spills = [int(n) for n in re.findall(r"(\d+) bytes spill", log)]
        assert len(spills) >= 2 * len(_cuda_source.kernel_names(family)), log
        assert not any(spills), log


def test_a_spill_would_be_seen() -> None:
    """With 24 registers for a kernel that needs over 100 the compiler reports spills, and the test above would fail."""
    options = [*_cuda_source.definitions("double"), "-arch=sm_90", "--maxrregcount=24", "--ptxas-options=-v"]
    _, log = _compile(_cuda_source.flatten("pairs"), options)
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
    # The certificates have no kernel yet.
    assert {header.name for header in headers} - changed == {"certify.hpp", "dual.hpp", "secular.hpp"}


def test_no_include_is_left_to_find() -> None:
    for family in _cuda_source.FAMILIES:
        assert '#include "' not in _cuda_source.flatten(family)
