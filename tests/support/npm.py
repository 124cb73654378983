"""The JavaScript clients of tests/clients, installed as they are pinned there.

What cannot be installed fails, saying what is missing: nothing is skipped.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from functools import cache
from pathlib import Path

CLIENTS = Path(__file__).parents[1] / "clients"
PACKAGE = Path(__file__).parents[2] / "clients" / "js"  # our own
INSTALL_S = 300
# Products that are published with their sources, and whose dependencies take too much room. Each
# row: the package, the hash of its archive, and the folders that the tests use.
LOBECHAT = (
    "@lobehub/chat@1.143.3",
    "Uil/m4srhejYYgMh7LmOn087GbESdhYO50T669Kuzawp7l5uZg/VeF2Mje4Xi73oKO37hcJY1EtwSIr6ilTYzg==",
    ("package/packages/",),
)
LOBEHUB = (
    "@lobehub/lobehub@2.1.26",
    "v6fRqss8S7Biv0EENFYOtdik7R4hVURCsjSZ6YFeyQ66nUMM2eKVGe4gC1OVV6s0xalVzjcgxpBCpmb1sEjd2g==",
    (
        "package/packages/",
        "package/package.json",
        "package/src/services/agentRuntime/",
        "package/src/server/modules/AgentRuntime/",
    ),
)
LIBRECHAT = (
    "@librechat/agents@3.9.2",
    "QrCGLdJLZQBprBvS7gNfrNEqykwt0B157A2tMGJflmzdBQa8/TQ0yLydQo3NcA7TtFZJeJNmCo0hsZj4UJbjmw==",
    ("package/dist/esm/", "package/package.json"),
)


def tool(*names: str) -> str:
    """Return the path of the first of these programs that is there.

    Raises:
        AssertionError: none is.
    """
    for name in names:
        if found := shutil.which(name):
            return found
    raise AssertionError(f"these tests need {' or '.join(names)} on PATH: see docs/testing.md")


@cache
def installed(directory: Path = CLIENTS) -> Path:
    """Return node_modules, with the packages of package-lock.json in it.

    Raises:
        AssertionError: npm is not there, or could not install them.
    """
    modules = directory / "node_modules"
    modules.mkdir(exist_ok=True)
    # Beside the directory, because npm empties it: two runs at once would tear it apart.
    with (directory / ".installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if _versions(directory / "package-lock.json") != _versions(modules / ".package-lock.json"):
            run(directory, "ci", "--no-audit", "--no-fund", "--loglevel=error")
    return modules


@cache
def built() -> Path:
    """Return dist of our own package, built from the sources as they are now.

    Raises:
        AssertionError: a type is wrong, the core is too large, or npm is not there.
    """
    installed(PACKAGE)
    with (PACKAGE / ".installing").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(PACKAGE, "run", "build")
    return PACKAGE / "dist"


def run(directory: Path, *argv: str) -> str:
    """Run npm in a directory; return what it wrote.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(
        [tool("npm"), *argv],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
    )
    assert done.returncode == 0, f"npm {argv[0]} failed:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _versions(lock: Path) -> dict[str, str]:
    """The packages that a lock file names, or that npm has noted as installed."""
    if not lock.exists():
        return {}
    packages = json.loads(lock.read_text())["packages"]
    return {
        path: each["version"]
        for path, each in packages.items()
        if path and not each.get("optional") and "version" in each
    }


def run_package_tests() -> str:
    """Run the tests of our own package that need no node; return what they wrote.

    Raises:
        AssertionError: a test failed.
    """
    installed(PACKAGE)
    return run(PACKAGE, "test")


@cache
def bundle(name: str) -> str:
    """Return a program of tests/clients with its packages, as one script for a page.

    Raises:
        AssertionError: esbuild could not make it.
    """
    production = "--define:process.env.NODE_ENV='production'"
    done = subprocess.run(
        [installed() / ".bin" / "esbuild", name, "--bundle", "--minify", production],
        cwd=CLIENTS,
        # The peers of our own package are those that the tests have installed.
        env={**os.environ, "NODE_PATH": str(CLIENTS / "node_modules")},
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
    )
    assert done.returncode == 0, f"esbuild failed:\n{done.stderr}"
    return done.stdout


@cache
def front_ends() -> Path:
    """Return the program front-ends.mjs with its parts of LobeChat, LobeHub and LibreChat.

    Raises:
        AssertionError: npm could not fetch them, or esbuild could not make the program.
    """
    program = installed() / ".packed" / "front-ends.mjs"
    sources = [_unpacked(*LOBECHAT), _unpacked(*LOBEHUB), _unpacked(*LIBRECHAT)]
    done = subprocess.run(
        [tool("node"), "bundle-front-ends.mjs", *sources, program],
        cwd=CLIENTS,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
    )
    assert done.returncode == 0, f"esbuild failed:\n{done.stderr}"
    return program


def _unpacked(package: str, sha512: str, folders: tuple[str, ...]) -> Path:
    """Return the root of a package that is unpacked without its dependencies."""
    name = f"{package.replace('/', '-')}-{len(folders)}"  # an older checkout has fewer folders
    place = installed() / ".packed" / name
    if not place.exists():
        place.parent.mkdir(exist_ok=True)
        with (CLIENTS / ".installing").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            archive = place.parent / _pack(package, place.parent)
            digest = hashlib.sha512(archive.read_bytes()).digest()
            assert base64.b64encode(digest).decode() == sha512, f"{package} is another archive"
            part = place.with_suffix(".part")
            with tarfile.open(archive) as tar:
                members = [one for one in tar if one.name.startswith(folders)]
                tar.extractall(part, members, filter="data")
            archive.unlink()
            part.rename(place)
    return place / "package"


def _pack(package: str, directory: Path) -> str:
    """Fetch the archive of a package into `directory`; return the name of its file."""
    done = subprocess.run(
        [tool("npm"), "pack", package, "--loglevel=error", f"--pack-destination={directory}"],
        cwd=CLIENTS,
        capture_output=True,
        text=True,
        timeout=INSTALL_S,
    )
    assert done.returncode == 0, f"npm pack failed:\n{done.stderr}"
    return done.stdout.split()[-1]
