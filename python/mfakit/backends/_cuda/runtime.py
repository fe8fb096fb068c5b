"""Whether CUDA can be used here, and how CuPy is imported: with a kernel cache that can be written."""

from __future__ import annotations

import atexit
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
from typing import Any

__all__ = ["OLDEST_CAPABILITY", "devices", "import_cupy", "note_use", "too_old", "why_not"]

_logger = logging.getLogger("mfakit")

# The oldest architecture that CUDA 13 compiles for; CUDA 12 goes further back, but nothing here was tried there.
OLDEST_CAPABILITY = 75

_cache_checked = False
_process: int | None = None  # which first used CUDA
_found = False  # that it can be used; asked before every call


def import_cupy() -> Any:
    """CuPy, whose kernel cache is on disk. It makes that folder while it is imported, and writes every kernel of its
    own to it: where it cannot, a folder of this process stands in, or memory if CuPy is there already.
    """
    global _cache_checked
    if not _cache_checked:
        folder = os.environ.get("CUPY_CACHE_DIR", os.path.expanduser("~/.cupy/kernel_cache"))
        if importlib.util.find_spec("cupy") is not None and not _is_writable(folder):
            _keep_kernels_elsewhere(folder)
        _cache_checked = True
    import cupy

    return cupy


def _is_writable(folder: str) -> bool:
    try:
        os.makedirs(folder, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _keep_kernels_elsewhere(folder: str) -> None:
    if "cupy" in sys.modules:
        os.environ["CUPY_CACHE_IN_MEMORY"] = "1"
    else:
        own, process = tempfile.mkdtemp(prefix="mfakit-kernels-"), os.getpid()
        os.environ["CUPY_CACHE_DIR"] = own
        atexit.register(lambda: shutil.rmtree(own, ignore_errors=True) if os.getpid() == process else None)
    _logger.info("kernel cache %s not writable; kernels are compiled for this process only", folder)


def note_use() -> None:
    """CUDA is used from here on: a fork of this process cannot use it.

    Raises
    ------
    RuntimeError
        This process is such a fork.
    """
    global _process
    if _process is not None and _process != os.getpid():
        raise RuntimeError(_after_fork())
    _process = os.getpid()


def _after_fork() -> str:
    return (
        "CUDA was used before this process was forked and cannot work here; start processes with the 'spawn' method "
        "(multiprocessing.set_start_method('spawn'))"
    )


def why_not() -> str | None:
    """None if there is a CUDA device that can be used, else one sentence."""
    global _found
    if _process is not None and _process != os.getpid():
        return _after_fork()
    if _found:
        return None
    reason = _look()
    _found = reason is None
    return reason


def _look() -> str | None:
    try:
        cupy = import_cupy()
    except (ImportError, OSError) as error:
        if importlib.util.find_spec("cupy") is None:
            return "CuPy is not installed; pip install 'mfakit[cuda13]' or 'mfakit[cuda12]', as the driver allows"
        return f"CuPy does not load: {_first_line(error)}"
    if not hasattr(cupy, "cuda"):
        return f"CuPy does not load: {cupy!r} is something else"
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        return _why_not_started(str(error))
    if not count:
        return "no CUDA device"
    found = [runtime.getDeviceProperties(device) for device in range(count)]
    if all(_capability(one) < OLDEST_CAPABILITY for one in found):
        return too_old(found[0])
    try:
        from cupy_backends.cuda.libs import cublas  # noqa: F401 (whether its library is there)
    except ImportError as error:
        return f"CuPy does not find cuBLAS: {_first_line(error)}"
    return None


def _why_not_started(error: str) -> str:
    if "InsufficientDriver" in error:
        return "no NVIDIA driver, or one too old for the installed CuPy"
    if "InitializationError" in error:  # what a forked process is told if CUDA was used before
        return f"CUDA does not start ({error}); if this process was forked after CUDA was used, start it by 'spawn'"
    return "no CUDA device" if "NoDevice" in error else f"CUDA does not start: {error}"


def _first_line(error: Exception) -> str:
    """What an error says first, beneath the rules that CuPy draws."""
    lines = (line.strip(" =-") for line in str(error).splitlines())
    return next((line for line in lines if line), type(error).__name__)


def _capability(properties: Any) -> int:
    return int(properties["major"]) * 10 + int(properties["minor"])


def too_old(properties: Any) -> str | None:
    """The sentence for a device that the kernels were not written for, else None."""
    capability = _capability(properties)
    if capability >= OLDEST_CAPABILITY:
        return None
    return (
        f"{properties['name'].decode()} has compute capability {capability / 10}, and the kernels need "
        f"{OLDEST_CAPABILITY / 10} or newer"
    )


def devices() -> list[str]:
    """A line for each CUDA device: name, compute capability, memory; and one for driver and runtime."""
    cupy = import_cupy()
    runtime, lines = cupy.cuda.runtime, []
    for number in range(runtime.getDeviceCount()):
        found = runtime.getDeviceProperties(number)
        name, memory = found["name"].decode(), found["totalGlobalMem"] / 2**30
        lines.append(f"cuda:{number} {name}, compute capability {_capability(found) / 10}, {memory:.0f} GiB")
    versions = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    return [*lines, f"driver {versions[0]}, runtime {versions[1]}, CuPy {cupy.__version__}"]
