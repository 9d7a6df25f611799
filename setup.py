"""Builds fastloop._core; everything that is not the C extension is in pyproject.toml.

Switches, by environment, for those who work on fastloop:

FASTLOOP_DEBUG=1      -O0 -g3, the consistency checks of FL_DEBUG, warnings as errors
FASTLOOP_SANITIZE=S   -fsanitize=S, for example address,undefined
FASTLOOP_COVERAGE=1   gcov instrumentation
FASTLOOP_WERROR=1     warnings as errors
"""

import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

LIBUV_MINIMUM = "1.44"
PACKAGES = """\
    Debian, Ubuntu   apt-get install {apt}
    Fedora, RHEL     dnf install {dnf}
    Arch             pacman -S {pacman}
    Alpine           apk add {apk}
    openSUSE         zypper install {dnf}
    Homebrew         brew install {brew}"""
WARNINGS = [
    "-Wall",
    "-Wextra",
    "-Wshadow",
    "-Wno-unused-parameter",  # fixed by the signatures of CPython and libuv
    "-Wno-unreachable-code",  # what only another Python reaches; clang is told to ask
    "-Wno-missing-field-initializers",  # the tail of a PyMethodDef is zero
    "-Werror",
]


def pkg_config(*arguments: str) -> list[str]:
    """Return what pkg-config prints, split as a shell would; SystemExit without it."""
    command = shlex.split(os.environ.get("PKG_CONFIG", "pkg-config"))
    if shutil.which(command[0]) is None:
        packages = PACKAGES.format(
            apt="pkg-config libuv1-dev",
            dnf="pkgconf-pkg-config libuv-devel",
            pacman="pkgconf libuv",
            apk="pkgconf libuv-dev",
            brew="pkgconf libuv",
        )
        sys.exit(
            f"fastloop finds libuv by {command[0]}, which is not installed. "
            f"Install both:\n{packages}"
        )
    done = subprocess.run(
        [*command, *arguments, "libuv"], check=False, capture_output=True, text=True
    )
    if done.returncode != 0:
        raise LookupError(done.stderr.strip())
    return shlex.split(done.stdout)


def libuv_flags() -> tuple[list[str], list[str]]:
    """Return the compiler's and the linker's flags for libuv; SystemExit without it."""
    packages = PACKAGES.format(
        apt="libuv1-dev",
        dnf="libuv-devel",
        pacman="libuv",
        apk="libuv-dev",
        brew="libuv",
    )
    wanted = f"fastloop needs libuv {LIBUV_MINIMUM} or newer with its headers"
    try:
        (found,) = pkg_config("--modversion")
    except LookupError:
        sys.exit(
            f"{wanted}, and pkg-config does not find libuv.pc. Install it, or name its "
            f"folder in PKG_CONFIG_PATH:\n{packages}"
        )
    if [int(n) for n in found.split(".")[:2]] < [
        int(n) for n in LIBUV_MINIMUM.split(".")
    ]:
        sys.exit(f"{wanted}, and this machine has {found}. Update it:\n{packages}")
    return pkg_config("--cflags"), pkg_config("--libs")


def switch(name: str) -> str:
    """Return the value of a FASTLOOP_ switch, empty where it is off."""
    value = os.environ.get(f"FASTLOOP_{name}", "")
    return "" if value == "0" else value


def switched_flags() -> tuple[list[str], list[str]]:
    """Return the compiler's and the linker's flags that the switches ask for."""
    compile_flags = ["-O3"]
    link_flags = []
    if switch("DEBUG"):
        compile_flags = ["-O0", "-g3", "-UNDEBUG", "-DFL_DEBUG"]
    if kinds := switch("SANITIZE"):
        sanitize = f"-fsanitize={kinds}"
        if not switch("DEBUG"):
            compile_flags = ["-O1"]
        compile_flags += [
            sanitize,
            "-g",
            "-fno-omit-frame-pointer",
            "-fno-sanitize-recover=undefined",
        ]
        link_flags += [sanitize]
    if switch("COVERAGE"):
        compile_flags += ["-O0", "-g", "--coverage"]
        link_flags += ["--coverage"]
    return compile_flags, link_flags


class BuildCore(build_ext):
    """build_ext that needs libuv, compiles on every CPU, and only what changed."""

    def run(self) -> None:
        if sys.platform not in ("linux", "android"):
            sys.exit(
                "fastloop waits for events by epoll and so is built on Linux only, "
                f"not on {sys.platform}."
            )
        if self.editable_mode:
            # An editable install compiles in a passing folder; the usual one has the
            # objects already, because only an in-place build makes them useful.
            build = self.reinitialize_command("build")
            build.ensure_finalized()
            self.build_temp = build.build_temp
        super().run()

    def build_extension(self, ext: Extension) -> None:
        uv_compile, uv_link = libuv_flags()
        compile_flags, link_flags = switched_flags()
        ext.extra_compile_args = [
            "-std=c11",
            "-D_GNU_SOURCE",  # accept4, pipe2, recvmmsg, sendmmsg
            "-fvisibility=hidden",
            *compile_flags,
            *uv_compile,
        ]
        ext.extra_link_args = [*link_flags, *uv_link]

        # Flags are part of what an object depends on. Those for warnings are not: they
        # change no code, and CI and a user share a build folder with and without.
        record = Path(self.build_temp, "flags.txt")
        flags = shlex.join([*ext.extra_compile_args, *ext.extra_link_args])
        if not record.exists() or record.read_text() != flags:
            self.force = True
        if switch("WERROR") or switch("DEBUG"):
            ext.extra_compile_args += WARNINGS
        ext.extra_compile_args.append("-MMD")

        whole_compile = self.compiler.compile

        def compile_stale(sources, output_dir=None, **options):
            def one(source):
                (path,) = self.compiler.object_filenames(
                    [source], output_dir=output_dir
                )
                if self.force or is_stale(Path(path)):
                    whole_compile([source], output_dir=output_dir, **options)
                return path

            with ThreadPoolExecutor(os.cpu_count()) as pool:
                return list(pool.map(one, sources))

        self.compiler.compile = compile_stale
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = whole_compile
        record.write_text(flags)


def is_stale(path: Path) -> bool:
    """Whether an object is missing or older than anything it was made from."""
    try:
        made = path.stat().st_mtime_ns
        rule = path.with_suffix(".d").read_text()
        inputs = shlex.split(rule.partition(":")[2].replace("\\\n", " "))
        return any(Path(name).stat().st_mtime_ns > made for name in inputs)
    except OSError:
        return True


setup(
    ext_modules=[
        Extension(
            "fastloop._core",
            sources=["csrc/module.c", *sorted(glob("csrc/*/*.c"))],
            depends=["setup.py", *sorted(glob("csrc/**/*.h", recursive=True))],
            include_dirs=["csrc"],
        )
    ],
    cmdclass={"build_ext": BuildCore},
)
