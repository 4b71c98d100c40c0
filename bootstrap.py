"""Make a virtual environment with pip, also on a Debian or Ubuntu that has nothing but python3.

Usage: python3 bootstrap.py .venv

Debian splits `ensurepip` off into the package python3-venv, so on a bare system `python3 -m venv` stops half way. There pip's own
wheel is taken from the distribution's package python3-pip-whl, downloaded (and its signature checked) by apt into a scratch
folder: no root rights are needed and the system is left as it was.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

INSTALLED = 7.5e9
"""Bytes that the environment takes once everything is installed; a torch for CPUs alone takes a fifth of it."""


def warn_of_little_room(folder: Path) -> None:
    """pip notices a full disk after minutes, having filled it."""
    free = shutil.disk_usage(folder).free
    if free < INSTALLED:
        print(
            f"{folder.resolve()} has {free / 1e9:.1f} GB free and the environment takes about {INSTALLED / 1e9:.1f} GB, most of it "
            "torch: should the installation fail, free some or clone to another disk",
            file=sys.stderr,
        )


def download_pip_wheel(scratch: Path) -> Path:
    """Let apt fetch python3-pip-whl into `scratch`, with package lists of its own, and unpack the wheel."""
    state, cache = scratch / "state", scratch / "cache"
    for folder in (state / "lists" / "partial", cache / "archives" / "partial"):
        folder.mkdir(parents=True)
    options = ["-o", f"Dir::State={state}", "-o", f"Dir::Cache={cache}", "-o", "Dir::State::status=/var/lib/dpkg/status"]
    # As root, apt would hand the download to the user _apt, who may not write here.
    options += ["-o", "APT::Sandbox::User=root", "-qq"]
    subprocess.run(["apt-get", *options, "update"], check=True)
    subprocess.run(["apt-get", *options, "download", "python3-pip-whl"], check=True, cwd=scratch)
    (package,) = scratch.glob("python3-pip-whl_*.deb")
    subprocess.run(["dpkg-deb", "-x", str(package), str(scratch / "unpacked")], check=True)
    (wheel,) = (scratch / "unpacked" / "usr" / "share" / "python-wheels").glob("pip-*.whl")
    return wheel


def main() -> None:
    """Make the environment that the first argument names."""
    if sys.version_info < (3, 10):  # noqa: UP036  (this file is what tells the user)
        sys.exit(f"deepfake-grid needs python3 >= 3.10; this is {sys.version.split()[0]} (say make PYTHON=/path/to/python3.12)")
    target = Path(sys.argv[1])
    if target.exists():
        if not (target / "pyvenv.cfg").is_file():
            sys.exit(f"{target} is there and is no virtual environment; remove or rename it")
        shutil.rmtree(target)  # one that was not finished
    warn_of_little_room(target.parent)
    if importlib.util.find_spec("ensurepip") is not None:
        venv.create(target, with_pip=True, symlinks=True)
        return
    print("python3-venv is not installed: taking pip's wheel from the distribution's package python3-pip-whl")
    venv.create(target, with_pip=False, symlinks=True)
    try:
        with tempfile.TemporaryDirectory() as scratch:
            wheel = download_pip_wheel(Path(scratch))
            pip = [target / "bin" / "python", f"{wheel}{os.sep}pip"]
            subprocess.run([*pip, "install", "-q", "--no-index", str(wheel)], check=True)
    except (subprocess.CalledProcessError, OSError, ValueError) as error:
        shutil.rmtree(target)
        sys.exit(f"could not get pip by apt ({error}); install it with: apt-get install python3-venv")


if __name__ == "__main__":
    main()
