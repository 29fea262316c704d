"""Rules of the project that no single module can keep: who imports whom, names, sizes, and the pinned packages."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
import tomllib
import warnings
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import keras_transfer

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "keras_transfer"

# Lowest first. A module imports modules of its own level or below, never above, and never in a circle.
LADDER = (
    {"named_fields"},
    {"recipe"},
    {"recipe_faults"},
    {"labels", "metrics", "solvers", "vision", "text", "torch_file", "progress", "silence", "inference_mode"},
    {"samples"},
    {"data", "devices", "fused_gelu", "schedules", "weights", "backbone", "backbones"},
    {"tasks.base"},
    {"tasks.classes"},  # what the two classification tasks share; no task itself
    {"tasks.*"},
    {"tasks"},
    {"freeze_policy", "freezing", "folding", "feature_arrays", "feature_store", "feature_key"},
    {"cached_examples"},
    {"feature_cache", "decoded_images"},
    {"run_record", "training_loop"},
    {"boundary_cache"},
    {"caching"},
    {"exported", "warmup", "saved_model_check"},
    {"verification"},
    {"phases", "own_model", "evaluation", "prediction", "versions", "export", "run_export", "report"},
    {"phase_log", "joined"},
    {"prepared", "planning"},
    {"two_phases"},
    {"transfer", "selection", "similarity"},
    {"recipe_file", "serving", "cli", "commands", "listings"},
    {"__main__"},
)
LONGEST, LONG = 400, 350
FORBIDDEN = {"util", "utils", "helper", "helpers", "manager", "managers", "common", "misc"}
# Modules that work before TensorFlow is loaded, so that the commands that need none answer at once.
LIGHT = ("recipe", "labels", "solvers", "metrics", "samples", "data.records", "recipe_file", "cli", "__main__")


def modules() -> dict[str, Path]:
    """Dotted name below the package -> file; "" is the package itself."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = modules()


def level(name: str) -> int | None:
    """The rung of a module, by its longest listed prefix."""
    if name.startswith("tasks.") and name not in ("tasks.base", "tasks.classes"):
        name = "tasks.*"
    while name:
        for rung, names in enumerate(LADDER):
            if name in names:
                return rung
        name = name.rpartition(".")[0]
    return None


def imports(name: str, source: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, module of this package) of every import in a source, also inside functions."""
    own = ["keras_transfer", *filter(None, name.split("."))]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _known(node.lineno, alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = own if is_package else own[:-1]
                base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            for alias in node.names:
                yield from _known(node.lineno, base, alias.name)


def _known(line: int, base: str, name: str) -> Iterator[tuple[int, str]]:
    """The module that an import names: `base.name` where that is one, else `base`."""
    if base != "keras_transfer" and not base.startswith("keras_transfer."):
        return
    inner = base.removeprefix("keras_transfer").removeprefix(".")
    deeper = ".".join(filter(None, [inner, name]))
    yield line, deeper if deeper in MODULES else inner


def edges() -> dict[str, list[tuple[int, str]]]:
    """Every module's imports of this package; the package itself only names its public modules, lazily."""
    return {
        name: list(imports(name, path.read_text(encoding="utf-8"), path.name == "__init__.py"))
        for name, path in MODULES.items()
        if name
    }


def faults_of(graph: dict[str, list[tuple[int, str]]]) -> list[str]:
    """Imports that climb the ladder, and tasks that import each other."""
    faults = []
    for name, wanted in graph.items():
        for line, other in wanted:
            here, there = level(name), level(other)
            if here is None or there is None:
                continue
            if there > here:
                faults.append(f"{name}:{line} imports {other}, which is above it")
            elif LADDER[here] == {"tasks.*"} and there == here and other != name:
                faults.append(f"{name}:{line} imports another task, {other}")
    return faults


def circle_in(graph: dict[str, list[tuple[int, str]]]) -> list[str]:
    """The modules of one circle of imports, or nothing."""
    done: set[str] = set()

    def walk(name: str, trail: list[str]) -> list[str]:
        if name in trail:
            return [*trail[trail.index(name) :], name]
        if name in done:
            return []
        for _, other in graph.get(name, []):
            if other != name and (found := walk(other, [*trail, name])):
                return found
        done.add(name)
        return []

    return next((found for name in graph if (found := walk(name, []))), [])


def test_every_module_has_a_rung():
    unplaced = [name for name in MODULES if name and level(name) is None]
    assert not unplaced, f"name these in LADDER (and in docs/architecture.md): {unplaced}"


def test_the_architecture_page_names_every_module():
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named = {name.removesuffix("/*") for name in re.findall(r"`([a-z_/*]+)(?:\.py)?`", page)}
    assert {name.split(".")[0] for name in MODULES if name} - named == set()


def test_imports_go_down_the_ladder():
    assert faults_of(edges()) == []


def test_no_circle_of_imports():
    assert circle_in(edges()) == []


def test_the_engine_knows_no_single_task():
    tasks = {name for name in MODULES if (rung := level(name)) is not None and LADDER[rung] == {"tasks.*"}}
    knowing = [
        f"{name}:{line} imports {other}"
        for name, wanted in edges().items()
        for line, other in wanted
        if other in tasks and name != "tasks" and not name.startswith("tasks.")
    ]
    assert knowing == []


@pytest.mark.parametrize(
    ("name", "source", "fault"),
    [
        ("labels", "def f():\n    import keras_transfer.cli", "labels:2 imports cli, which is above it"),
        ("labels", "from keras_transfer import cli", "labels:1 imports cli, which is above it"),
        ("data.records", "from ..cli import main", "data.records:1 imports cli, which is above it"),
        ("data.records", "from . import records", None),
        ("cli", "from keras_transfer.recipe import Recipe\nimport keras", None),
    ],
)
def test_the_ladder_finds_a_fault(monkeypatch, name, source, fault):
    monkeypatch.setitem(MODULES, "cli", PACKAGE / "cli.py")
    graph = {name: list(imports(name, source, is_package=False))}
    assert faults_of(graph) == ([fault] if fault else [])


def test_one_task_may_not_import_another(monkeypatch):
    monkeypatch.setitem(MODULES, "tasks.one", PACKAGE)
    monkeypatch.setitem(MODULES, "tasks.two", PACKAGE)
    source = "from keras_transfer.tasks import base\nfrom keras_transfer.tasks.two import Two"
    graph = {"tasks.one": list(imports("tasks.one", source, is_package=False))}
    assert faults_of(graph) == ["tasks.one:2 imports another task, tasks.two"]


def test_a_circle_is_found():
    assert circle_in({"a": [(1, "b")], "b": [(1, "c")], "c": [(1, "a")]}) == ["a", "b", "c", "a"]
    assert circle_in({"a": [(1, "b"), (2, "c")], "b": [(1, "c")], "c": []}) == []


def test_modules_are_short():
    lengths = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8").count("\n") for path in MODULES.values()}
    for name, lines in lengths.items():
        if LONG < lines <= LONGEST:
            warnings.warn(f"{name} has {lines} lines: does it do two things?", stacklevel=1)
    assert {name: lines for name, lines in lengths.items() if lines > LONGEST} == {}


def test_modules_are_named_after_what_they_hold():
    named = {part for name in MODULES for part in name.split(".")} | {path.stem for path in ROOT.glob("tests/**/*.py")}
    assert named.isdisjoint(FORBIDDEN)


def test_every_folder_of_modules_is_a_package():
    bare = {path.parent for path in MODULES.values() if not (path.parent / "__init__.py").is_file()}
    assert bare == set(), "a folder without __init__.py is left out of the wheel"


def run_python(code: str) -> str:
    """What a fresh process prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_package_imports_no_tensorflow():
    code = (
        "import sys, keras_transfer; dir(keras_transfer); keras_transfer.__version__;"
        " keras_transfer.Recipe; print(*{'tensorflow', 'keras', 'numpy', 'scipy'} & set(sys.modules))"
    )
    assert run_python(code) == ""


def test_light_modules_import_no_tensorflow():
    light = [name for name in MODULES if any(name == one or name.startswith(one + ".") for one in LIGHT)]
    code = (
        "import importlib, sys\n"
        f"for name in {light!r}:\n"
        "    importlib.import_module('keras_transfer.' + name)\n"
        "    heavy = {'tensorflow', 'keras', 'sklearn'} & set(sys.modules)\n"
        "    if heavy: sys.exit(f'{name} imports {heavy}')\n"
    )
    run_python(code)


def test_public_names_are_listed_once():
    assert sorted(keras_transfer.__all__) == sorted([*keras_transfer._HOMES, "__version__"])
    assert set(keras_transfer.__all__) <= set(dir(keras_transfer))


@pytest.mark.parametrize("name", sorted(keras_transfer._HOMES))
def test_public_name_is_found(name):
    found = getattr(keras_transfer, name)
    assert callable(found)
    assert found.__name__ == name
    assert found.__doc__, f"{name} says nothing about itself"


def test_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="keras_transfer.*nothing_like_it"):
        _ = keras_transfer.nothing_like_it


def test_export_is_the_function_though_its_module_was_imported_first():
    code = (
        "import keras_transfer.export, types\n"
        "from keras_transfer import export\n"
        "from keras_transfer.export import export as inner\n"
        "print(isinstance(export, types.FunctionType), keras_transfer.export is export is inner)"
    )
    assert run_python(code) == "True True"


def pins() -> dict[str, str]:
    """Canonical name -> pinned version."""
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            name, separator, version = line.partition("==")
            assert separator, f"constraints.txt: expected NAME==VERSION. Received: {line}"
            assert re.fullmatch(r"[A-Za-z0-9._-]+", name), line
            assert re.fullmatch(r"[0-9][A-Za-z0-9.!+]*", version), line
            pinned[canonicalize_name(name)] = version
    return pinned


def asked_for() -> list[Requirement]:
    """The requirements of pyproject.toml, those of every extra included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    texts = [*project["dependencies"], *(one for extra in project["optional-dependencies"].values() for one in extra)]
    return [Requirement(text) for text in texts]


def test_pins_are_within_the_ranges():
    pinned = pins()
    outside = [
        f"{wanted} but {pinned.get(canonicalize_name(wanted.name))}"
        for wanted in asked_for()
        if not wanted.specifier.contains(pinned.get(canonicalize_name(wanted.name), "0"), prereleases=True)
    ]
    assert outside == []


def test_every_package_that_comes_along_is_pinned():
    pinned = pins()
    waiting = [(wanted.name, frozenset(wanted.extras)) for wanted in asked_for()]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        name, extras = entry = waiting.pop()
        if entry in seen:
            continue
        seen.add(entry)
        try:
            needs = metadata.requires(name) or []
        except metadata.PackageNotFoundError:
            continue  # an extra that this environment was made without
        for wanted in map(Requirement, needs):
            if wanted.marker is None or any(wanted.marker.evaluate({"extra": extra}) for extra in {"", *extras}):
                waiting.append((wanted.name, frozenset(wanted.extras)))
    assert len(seen) > 40, "metadata of the installed packages was not read"
    assert sorted({canonicalize_name(name) for name, _ in seen} - pinned.keys()) == []


def test_markers_and_tools_are_set_once():
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert {"slow", "network", "gpu", "samples"} == {
        line.split(":")[0] for line in settings["tool:pytest"]["markers"].strip().splitlines()
    }
    assert not {"pytest", "mypy"} & set(project["tool"]), "setup.cfg holds them"


def test_ci_runs_the_tests():
    script = ROOT / ".ci" / "run"
    assert "make test" in script.read_text(encoding="utf-8")
    assert script.stat().st_mode & 0o111
