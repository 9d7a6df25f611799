"""The source distribution: it has everything, and what pip makes of it works."""

import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import tomllib

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = "import sys; from setuptools import build_meta; print(build_meta.build_sdist(sys.argv[1]))"


def run(*command, cwd, **env):
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": "", **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A folder with the files of this tree that git knows or would take."""
    pytest.importorskip("setuptools")
    if not (ROOT / ".git").exists() or shutil.which("git") is None:
        pytest.skip("no clone of git's: it alone tells what belongs to the sources")
    listed = run(
        *("git", "-C", str(ROOT), "ls-files", "--cached", "--others"),
        "--exclude-standard",
        cwd=ROOT,
    ).splitlines()
    folder = tmp_path_factory.mktemp("clone")
    for name in listed:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def sdist(clone):
    out = clone / "dist"
    name = run(sys.executable, "-c", BUILD, str(out), cwd=clone).splitlines()[-1]
    return out / name


def test_sdist_has_every_file(clone, sdist):
    with tarfile.open(sdist) as archive:
        packed = {name.partition("/")[2] for name in archive.getnames()}
    made = {"dist", "build"}
    for path in clone.rglob("*"):
        name = path.relative_to(clone)
        if (
            path.is_file()
            and name.parts[0] not in made
            and ".egg-info" not in str(name)
        ):
            assert str(name) in packed


def test_pip_install(sdist, tmp_path):
    """Without optimization, to be quick."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index"]
    run(
        *(*pip, "--no-deps", "--no-build-isolation", "--target", str(tmp_path)),
        str(sdist),
        cwd=tmp_path,
        FASTLOOP_DEBUG="1",
        FASTLOOP_SANITIZE="",
        FASTLOOP_COVERAGE="",
    )
    smoke = [sys.executable, "-W", "error", str(ROOT / "tests" / "smoke.py")]
    written = run(*smoke, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "works on" in written
    assert (tmp_path / "fastloop" / "py.typed").exists()


def test_version():
    """One place says it, and needs no import of the core."""
    with open(ROOT / "pyproject.toml", "rb") as file:
        settings = tomllib.load(file)
    attr = settings["tool"]["setuptools"]["dynamic"]["version"]["attr"]
    assert attr == "fastloop._version.__version__"
    code = "import sys, fastloop; print(fastloop.__version__, 'fastloop._core' in sys.modules)"
    version, loaded = run(
        sys.executable, "-c", code, cwd=ROOT, PYTHONPATH=str(ROOT)
    ).split()
    assert version.count(".") == 2
    assert loaded == "False"
