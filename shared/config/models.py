"""The models file: the name, the backend and the takeover behaviour of each model.

API nodes list the models and refuse unknown names; workers build a backend from each. The file
holds names of environment variables, never keys. The table `[models."*"]` serves every model that
its server lists: workers ask the server (workers/model_list.py), and all roles learn the names
(shared/queue/model_lists.py).
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from shared.config.kinds import kind_names, kind_of
from shared.config.kinds.route import ROUTE
from shared.config.kinds.spec import KindSpec
from shared.config.local_models import find_file
from shared.config.model_connection import CONNECTION_MEMBERS, Connection, parse_connection
from shared.config.model_request import REQUEST_MEMBERS, RequestRules, parse_rules
from shared.config.model_route import RouteRules, check_route_names, parse_route
from shared.config.stages import parse_stages
from shared.config.stages.spec import StageTable
from shared.errors import ConfigurationError

DEFAULT_BACKEND = "openai"
ANY = "*"  # the name of the table for all models of a server
MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,127}", re.ASCII)
LISTED_MAX = 1_000  # names of one list
SLOTS_MAX = 100_000  # of one backend
ON_TAKEOVER = ("auto", "continue", "restart", "fail")
# A variable of the environment in a header or the URL of a proxy: ${NAME}.
ENVIRONMENT = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One table of the models file.

    Attributes:
        name: the name that clients use.
        backend: a kind of `KINDS`, or a plug-in.
        base_url: of the server, in the form that the kind has.
        model: the name at the backend; empty: the same as `name`.
        api_key_env: the environment variable that holds the key.
        on_takeover: `auto` (continue in a form that was seen to hold, else restart), `continue`
            (send the partial answer as a prefix), `restart` (reset) or `fail`.
        continue_style: one of the kind's `styles`; `auto` prefers it. Empty: the first of them.
        rules: how requests to the server differ from the usual ones.
        connection: how to connect to the server.
        stages: what stands between the model and the log, in order.
        options: the members of this kind alone; for the demo: seed, tokens_per_s, fail_at, …
        route: the backends behind this name; None: the table is a backend itself.
        hidden: clients cannot use this name; only routes do.
        slots: requests that all workers together let the backend answer at a time; 0: any number.
        audio: the plug-in, or a stage, reads the audio input of a generation.
    """

    name: str
    backend: str = DEFAULT_BACKEND
    base_url: str = ""
    model: str = ""
    api_key_env: str = ""
    on_takeover: str = "auto"
    continue_style: str = ""
    rules: RequestRules = RequestRules()
    connection: Connection = Connection()
    stages: tuple[StageTable, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    route: RouteRules | None = None
    hidden: bool = False
    slots: int = 0
    audio: bool = False

    def __post_init__(self) -> None:
        if not self.continue_style and self.kind.styles:
            object.__setattr__(self, "continue_style", self.kind.styles[0])  # the class is frozen

    @property
    def kind(self) -> KindSpec:
        kind = kind_of(self.backend)
        assert kind is not None, self.backend  # `parse_models` has checked the name
        return kind

    @property
    def upstream_name(self) -> str:
        return self.model or self.name

    @property
    def takes_audio(self) -> bool:
        """Whether a generation of this model may have an audio input."""
        return self.audio or self.kind.takes_audio

    @property
    def may_continue(self) -> bool:
        """Whether a new attempt may continue the partial answer of an earlier one."""
        return bool(self.kind.styles) and self.on_takeover in ("auto", "continue")


# The members of a table that are attributes of `Model` under the same name.
OTHERS = {"name", "rules", "connection", "options", "route", "hidden", "stages", "slots", "audio"}
STRINGS = frozenset(f.name for f in fields(Model)) - OTHERS
DEMO = Model(name="demo", backend="demo", on_takeover="continue")
DEMO_TRANSCRIBER = Model(
    name="demo-transcriber", backend="demo_transcriber", on_takeover="continue"
)
SMOLLM2 = Model(
    name="smollm2",
    backend="local",
    # The model was trained with this sentence.
    options={"system": "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
)
# The names that TAILRACE_MODELS may have in the place of a file.
BUILT_IN: Mapping[str, Mapping[str, Model]] = {
    "": {DEMO.name: DEMO, DEMO_TRANSCRIBER.name: DEMO_TRANSCRIBER},
    SMOLLM2.name: {
        SMOLLM2.name: SMOLLM2,
        DEMO.name: DEMO,
        DEMO_TRANSCRIBER.name: DEMO_TRANSCRIBER,
    },
}


class ModelTable(dict[str, Model]):
    """The models that requests may name. The first one is the default.

    Attributes:
        pattern: the model of `[models."*"]`; None: there is none. Its name is `*`.
    """

    def __init__(self, models: Mapping[str, Model]) -> None:
        super().__init__({name: model for name, model in models.items() if name != ANY})
        self.pattern = models.get(ANY)
        self._named = frozenset(self)

    @property
    def tables(self) -> dict[str, Model]:
        """The models of the file, each with the name of its table."""
        named = {name: model for name, model in self.items() if name in self._named}
        return named if self.pattern is None else {**named, ANY: self.pattern}

    def for_clients(self) -> ModelTable:
        """Return the models that clients may name: all without the hidden ones."""
        shown = ModelTable({n: model for n, model in self.tables.items() if not model.hidden})
        shown._named = self._named  # a server's list shows no hidden name either
        return shown

    def learn(self, names: Iterable[str]) -> None:
        """Serve exactly these names of the server's list, besides the tables of the file.

        A name that clients cannot use is left out, and so are those beyond `LISTED_MAX`.
        """
        if self.pattern is None:
            return
        usable = [name for name in names if MODEL_NAME.fullmatch(name)][:LISTED_MAX]
        for name in self.keys() - self._named - set(usable):
            del self[name]
        for name in usable:
            if name not in self and name not in self._named:
                self[name] = replace(self.pattern, name=name)

    def __missing__(self, name: str) -> Model:
        """Return the model of a name that the list had when its request was accepted."""
        if self.pattern is None or MODEL_NAME.fullmatch(name) is None:
            raise KeyError(name)
        return replace(self.pattern, name=name)


def member_model(route: Model, member: Model) -> Model:
    """Return the model of a backend with the takeover rule that holds in this route.

    `continue` of the route holds for backends that say nothing themselves. A backend that says
    `restart` or `fail` cannot continue, whatever the route says.
    """
    if route.on_takeover in ("restart", "fail") or member.on_takeover in ("restart", "fail"):
        return replace(member, on_takeover="restart")
    if route.on_takeover == "continue":
        return replace(member, on_takeover="continue")
    return member


def can_serve(models: Mapping[str, Model], name: str) -> bool:
    """Whether a worker with these models can run a request that an API node has accepted."""
    return name in models or (isinstance(models, ModelTable) and models.pattern is not None)


def load_models(path: str, skipped: str = "") -> ModelTable:
    """Read the models file, or return models that are built in. The first is the default.

    Args:
        path: of the file, or a name of `BUILT_IN`.
        skipped: names of models of the file to leave out, comma-separated.

    Raises:
        ConfigurationError: no such file, no TOML, an unknown member, or a value not allowed.
    """
    if path in BUILT_IN:
        return ModelTable(BUILT_IN[path])
    try:
        tables = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as exc:
        raise ConfigurationError(f"TAILRACE_MODELS: {path}: {exc}") from exc
    except (ValueError, RecursionError) as exc:
        # tomllib's error is a ValueError. A number of 5,000 digits raises a plain ValueError.
        raise ConfigurationError(f"{path} is not TOML: {exc}") from exc
    models = parse_models(tables, path).tables
    left_out = set(skipped.split(","))
    kept = dict(_without(models, left_out))
    if not kept:
        raise ConfigurationError(f"TAILRACE_MODELS_SKIP leaves out every model of {path}")
    return ModelTable(kept)


def _without(models: Mapping[str, Model], names: set[str]) -> Iterator[tuple[str, Model]]:
    """Yield the models without these, also in routes. A route without backends is left out."""
    for name, model in models.items():
        if name in names:
            continue
        if model.route is None:
            yield name, model
        elif (route := model.route.without(names)) is not None:
            yield name, replace(model, route=route)


def missing_variables(model: Model, environ: Mapping[str, str]) -> list[str]:
    """Return the environment variables that the model's table names and that have no value."""
    values = (*model.rules.headers.values(), model.connection.proxy)
    named = [name for value in values for name in ENVIRONMENT.findall(value)]
    names = [model.api_key_env, *named] if model.api_key_env else named
    return [name for name in dict.fromkeys(names) if not environ.get(name, "").strip()]


def missing_parts(model: Model) -> str:
    """Return which package or file a model lacks here, with what to do; empty: all are there."""
    if missing := model.kind.missing():
        return missing
    if model.backend == "local":
        return find_file(model.upstream_name, model.options.get("file", ""))[1]
    return ""


def parse_models(tables: Mapping[str, Any], path: str) -> ModelTable:
    """Check the decoded file and build its models.

    Raises:
        ConfigurationError: as `load_models`.
    """
    unknown = set(tables) - {"models"}
    if unknown:
        raise ConfigurationError(
            f"{path}: unknown table {sorted(unknown)[0]!r}; models go in [models.NAME]"
        )
    models = tables.get("models")
    if not isinstance(models, dict) or not models:
        raise ConfigurationError(f"{path}: no [models.NAME] table")
    parsed = {name: _parse_model(name, table, path) for name, table in models.items()}
    return ModelTable(_with_routes(parsed, path))


def _with_routes(models: Mapping[str, Model], path: str) -> dict[str, Model]:
    """Check the routes of a file; give each one what it has of its backends."""
    is_route = {name: model.route is not None for name, model in models.items()}
    found, routed = dict(models), set[str]()
    for name, model in models.items():
        if model.route is None:
            continue
        check_route_names(name, model.route, is_route, f"{path}: models.{name}")
        routed |= {*model.route.backends}
        forward = [word for b in model.route.backends for word in models[b].rules.forward]
        rules = RequestRules(forward=tuple(dict.fromkeys(forward)))
        found[name] = replace(model, rules=rules)
    for name, model in models.items():
        if model.hidden and name not in routed:
            why = "no route names this table, so no client could reach it"
            raise ConfigurationError(f"{path}: models.{name}.hidden: {why}")
    return found


def _parse_model(name: str, table: Any, path: str) -> Model:
    where = f"{path}: models.{name}"
    if MODEL_NAME.fullmatch(name) is None and name != ANY:
        raise ConfigurationError(
            f"{path}: models.{name!r}: a name has letters, digits and ._:/@+- only, at most 128"
        )
    if not isinstance(table, dict):
        raise ConfigurationError(f"{where}: must be a table")
    if "route" in table:
        return _parse_route_table(name, table, where, Path(path).parent)
    values = {key: value for key, value in table.items() if key in STRINGS}
    options = {key: value for key, value in table.items() if key not in STRINGS}
    hidden = options.pop("hidden", False)
    _check_hidden(name, hidden, where)
    audio = options.pop("audio", False)
    if type(audio) is not bool:
        raise ConfigurationError(f"{where}.audio: must be true or false")
    slots = options.pop("slots", 0)
    if "slots" in table and (type(slots) is not int or not 0 < slots <= SLOTS_MAX):
        raise ConfigurationError(f"{where}.slots: must be a whole number from 1 to {SLOTS_MAX}")
    stages = parse_stages(options.pop("stages", []), f"{where}.stages", Path(path).parent)
    for key, value in values.items():
        if not isinstance(value, str):
            raise ConfigurationError(f"{where}.{key}: must be a string")
    backend = values.get("backend", DEFAULT_BACKEND)
    if (kind := kind_of(backend)) is None or kind is ROUTE:
        names = ", ".join(kind_names())
        raise ConfigurationError(
            f"{where}.backend: must be one of {names}, or a class as package.module:Class"
        )
    model = Model(
        name=name, options=options, hidden=hidden, slots=slots, stages=stages, audio=audio, **values
    )
    for key, value, allowed in (
        ("on_takeover", model.on_takeover, ON_TAKEOVER),
        ("continue_style", model.continue_style, kind.styles or ("",)),
    ):
        if value not in allowed:
            words = ", ".join(filter(None, allowed))
            why = f"must be one of {words}" if words else f"servers of {backend} have no forms"
            raise ConfigurationError(f"{where}.{key}: {why}")
    if name == ANY and (not kind.models_path or model.model):
        why = "`model` is not allowed" if model.model else f"servers of {backend} list no models"
        raise ConfigurationError(f"{where}: stands for every model of a server: {why}")
    if kind.has_server:
        model = _with_server(model, kind, table, where, Path(path).parent)
    return replace(model, options=kind.check_members(model.options, where))


def _parse_route_table(name: str, table: Mapping[str, Any], where: str, folder: Path) -> Model:
    stages = parse_stages(table.get("stages", []), f"{where}.stages", folder)
    table = {key: value for key, value in table.items() if key != "stages"}
    if name == ANY:
        raise ConfigurationError(f"{where}: stands for every model of a server: no route here")
    route = parse_route(table, where)
    on_takeover = table.get("on_takeover", "auto")
    if on_takeover not in ON_TAKEOVER:
        raise ConfigurationError(f"{where}.on_takeover: must be one of {', '.join(ON_TAKEOVER)}")
    return Model(name=name, backend=ROUTE.name, on_takeover=on_takeover, route=route, stages=stages)


def _check_hidden(name: str, hidden: Any, where: str) -> None:
    if type(hidden) is not bool:
        raise ConfigurationError(f"{where}.hidden: must be true or false")
    if hidden and name == ANY:
        raise ConfigurationError(f"{where}.hidden: the models of a server's list cannot be hidden")


def _with_server(
    model: Model, kind: KindSpec, table: Mapping[str, Any], where: str, folder: Path
) -> Model:
    """Return the model with the members of its table about the server and the requests."""
    schemes = [f"{scheme}://" for scheme in kind.schemes]
    if not model.base_url.startswith(tuple(schemes)):
        raise ConfigurationError(f"{where}.base_url: must start with {' or '.join(schemes)}")
    members = {*CONNECTION_MEMBERS, *(REQUEST_MEMBERS if kind.has_rules else ())}
    rules = parse_rules(table, where, kind.header) if kind.has_rules else RequestRules()
    options = {key: value for key, value in model.options.items() if key not in members}
    connection = parse_connection(table, where, folder)
    return replace(model, rules=rules, connection=connection, options=options)
