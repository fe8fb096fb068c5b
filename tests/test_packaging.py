"""The wheels, compiled and pure, as a user gets them: built from the checkout, installed in an empty environment."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path
from typing import NamedTuple

import pytest

import mfakit

HEAVY = ("cupy", "dask", "distributed", "matplotlib", "numba", "sklearn", "torch")
COMPILERS = ("c++", "g++", "clang++")


def environment(**extra: str) -> dict[str, str]:
    """This process's environment less what could lead to another mfakit or to data that a user would not have."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("MFAKIT_", "PYTHON"))}
    return {**kept, "PYTHONNOUSERSITE": "1", **extra}


def run(*command: str | Path, env: dict[str, str], cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command without standard input, as text."""
    return subprocess.run(
        [str(part) for part in command], env=env, cwd=cwd, text=True, capture_output=True, stdin=subprocess.DEVNULL
    )


def output(*command: str | Path, env: dict[str, str], cwd: Path) -> str:
    """Run a command that must succeed: what it wrote to standard output."""
    done = run(*command, env=env, cwd=cwd)
    assert done.returncode == 0, f"{command} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build(checkout: Path, into: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Build a wheel as `pip install` does: isolated, with what pyproject.toml asks for."""
    return run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--wheel-dir", into, checkout, env=env, cwd=into)


def built(checkout: Path, into: Path, env: dict[str, str]) -> Path:
    """Build a wheel, which must succeed: its path."""
    done = build(checkout, into, env)
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = into.glob("mfakit-*.whl")
    return wheel


def without_compiler(folder: Path, **extra: str) -> dict[str, str]:
    """Return an environment where CMake and make are found, and no compiler is."""
    for tool in ("sh", "cmake", "make"):
        found = shutil.which(tool)
        if found:
            (folder / tool).symlink_to(found)
    missing = str(folder / "no-such-compiler")
    return environment(PATH=str(folder), CC=missing, CXX=missing, **extra)


def names(wheel: Path) -> set[str]:
    """Paths of the files in a wheel."""
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


class Installed(NamedTuple):
    """A fresh environment with one wheel in it."""

    python: Path
    site: Path
    away: Path  # an empty folder outside the checkout, to run in

    def run(self, *arguments: str | Path) -> str:
        return output(self.python, *arguments, env=environment(), cwd=self.away)


def install(wheel: Path, folder: Path) -> Installed:
    """Install a wheel in a fresh environment; third-party packages are this environment's, found after its own."""
    root, away = folder / "env", folder / "away"
    away.mkdir()
    venv.create(root, with_pip=False)
    python = root / "bin" / "python"
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(output(python, "-c", where, env=environment(), cwd=away).strip())
    pip = ("-m", "pip", "--python", python, "install", "--no-deps", wheel)
    output(sys.executable, *pip, env=environment(), cwd=away)
    paths = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    (site / "third_party.pth").write_text("\n".join(sorted(paths)) + "\n")
    return Installed(python, site, away)


@pytest.fixture(scope="session")
def checkout(request: pytest.FixtureRequest) -> Path:
    """Return the checkout that contains these tests."""
    root = request.config.rootpath
    if not (root / "pyproject.toml").is_file() or not (root / "python" / "mfakit").is_dir():
        pytest.skip("needs the checkout: there is no pyproject.toml with python/mfakit beside the tests")
    return root


@pytest.fixture(scope="session")
def native_wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the compiled wheel, once; MFAKIT_WHEEL names one that was built from this checkout, as `make test` does."""
    if "MFAKIT_WHEEL" in os.environ:
        return Path(os.environ["MFAKIT_WHEEL"]).absolute()
    if not any(map(shutil.which, (os.environ.get("CXX", "c++"), *COMPILERS))):
        pytest.skip("needs a C++ compiler")
    return built(checkout, tmp_path_factory.mktemp("native"), environment(MFAKIT_REQUIRE_NATIVE="1"))


@pytest.fixture(scope="session")
def pure_wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel that a machine without a compiler gets, once."""
    return built(checkout, tmp_path_factory.mktemp("pure"), without_compiler(tmp_path_factory.mktemp("tools")))


@pytest.fixture(scope="session")
def native(native_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(native_wheel, tmp_path_factory.mktemp("native-env"))


@pytest.fixture(scope="session")
def pure(pure_wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Installed:
    return install(pure_wheel, tmp_path_factory.mktemp("pure-env"))


@pytest.fixture(params=["native", "pure"])
def wheel(request: pytest.FixtureRequest) -> Path:
    """Each of the two wheels."""
    path: Path = request.getfixturevalue(f"{request.param}_wheel")
    return path


@pytest.mark.skipif(
    os.environ.get("MFAKIT_REQUIRE_NATIVE", "0") in ("", "0"), reason="MFAKIT_REQUIRE_NATIVE=1 is not set"
)
def test_package_under_test_is_compiled(tmp_path: Path) -> None:
    output(sys.executable, "-c", "import mfakit._native", env=dict(os.environ), cwd=tmp_path)


def test_readme_runs_in_an_empty_environment(checkout: Path, native: Installed) -> None:
    block = re.search(r"^```python\n(.*?)^```", (checkout / "README.md").read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert block is not None, "README.md has no Python block"
    script = native.away / "readme.py"
    script.write_text(block.group(1) + "\nimport mfakit\nprint('ran with', mfakit.__file__)\n", "utf-8")
    origin = native.run(script).splitlines()[-1].removeprefix("ran with ")
    assert Path(origin) == native.site / "mfakit" / "__init__.py"


def test_the_long_description_has_no_links_into_the_checkout(checkout: Path, wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        text = archive.read(name).decode("utf-8")
    readme = (checkout / "README.md").read_text("utf-8")
    absolute = re.compile(r"\]\((https://[^)]*)\)")
    assert "](docs/" in readme
    assert re.findall(r"\]\((.*?)\)", text) == absolute.findall(text) == absolute.findall(readme)
    assert "\nDescription-Content-Type: text/markdown\n" in text
    assert "\n## Install\n" in text


def test_compiled_wheel_has_one_extension_for_this_interpreter(native_wheel: Path, native: Installed) -> None:
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    assert {name for name in names(native_wheel) if "_native" in name} == {f"mfakit/_native{suffix}"}
    assert Path(native.run("-c", "import mfakit._native as n; print(n.__file__)").strip()).parent.parent == native.site


def test_without_compiler_the_wheel_is_pure_python(pure_wheel: Path, pure: Installed) -> None:
    assert pure_wheel.name == f"mfakit-{mfakit.__version__}-py3-none-any.whl"
    assert not [name for name in names(pure_wheel) if name.endswith((".so", ".pyd", ".dylib")) or "_native" in name]
    code = "import mfakit, mfakit.backends as b; print(mfakit.__file__, *b.available(), b.get_backend().__name__)"
    where, *backends, default = pure.run("-c", code).split()
    assert Path(where) == pure.site / "mfakit" / "__init__.py"
    assert backends == ["numba", "numpy"]
    assert default == "mfakit.backends.numba_ops"


def test_info_says_why_the_native_backend_is_missing(pure: Installed) -> None:
    told = output(pure.python.with_name("mfakit"), "info", env=environment(), cwd=pure.away)
    (line,) = [line for line in told.splitlines() if re.match(r"\W*native\b", line)]
    assert "mfakit._native is not installed" in line


def test_required_extension_is_never_left_out_silently(checkout: Path, tmp_path: Path) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    done = build(checkout, tmp_path, without_compiler(tools, MFAKIT_REQUIRE_NATIVE="1"))
    assert done.returncode != 0
    assert "CMake configuration failed" in done.stdout + done.stderr
    assert not list(tmp_path.glob("*.whl"))


def test_wheel_carries_what_the_package_reads(checkout: Path, wheel: Path) -> None:
    package = checkout / "python" / "mfakit"
    models = {f"mfakit/{path.relative_to(package)}" for path in package.glob("datasets/models/*.safetensors")}
    sources = {
        f"mfakit/{path.relative_to(checkout)}"
        for folder in ("include", "cuda")
        for path in (checkout / "csrc" / folder).rglob("*")
        if path.is_file()
    }
    assert models, "the checkout has no shipped models"
    assert any(name.endswith(".hpp") for name in sources)
    inside = names(wheel)
    assert {"mfakit/py.typed", *models, *sources} <= inside
    assert {name for name in inside if name.startswith("mfakit/csrc/")} == sources


def test_wheel_carries_nothing_else(wheel: Path) -> None:
    inside = names(wheel)
    assert {name.split("/")[0] for name in inside} == {"mfakit", f"mfakit-{mfakit.__version__}.dist-info"}
    assert not [name for name in inside if "__pycache__" in name or name.endswith((".pyc", ".npz", ".jpg", ".zip"))]
    with zipfile.ZipFile(wheel) as archive:
        models = [info.file_size for info in archive.infolist() if info.filename.endswith(".safetensors")]
    assert sum(models) < 4_000_000


def test_import_is_light(tmp_path: Path) -> None:
    code = f"import sys, mfakit; print([name for name in {HEAVY} if name in sys.modules])"
    assert output(sys.executable, "-c", code, env=dict(os.environ), cwd=tmp_path).strip() == "[]"


def test_import_takes_under_300_ms(tmp_path: Path) -> None:
    code = "from time import perf_counter as t; a = t(); import mfakit; print(t() - a)"
    # The best of several: a busy machine is not the package's fault, and the first run may compile bytecode.
    seconds = [float(output(sys.executable, "-c", code, env=dict(os.environ), cwd=tmp_path)) for _ in range(7)]
    assert min(seconds) < 0.3, seconds
