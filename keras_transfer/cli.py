"""The commands. TensorFlow is imported only inside a command that needs it."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

from keras_transfer.commands import FAILED, UsageError
from keras_transfer.recipe import RecipeError

USAGE, INTERRUPTED, TERMINATED = 2, 130, 143

TAKE_FIELDS = ("fit", "evaluate", "predict", "check")
"""Commands that take recipe fields (`--head.epochs 2`) beside their own options."""

# Name, what it does, an example.
COMMANDS: dict[str, tuple[str, str]] = {
    "fit": (
        "train, measure and publish a model",
        "keras-transfer fit photos/ --fine_tune.trainable last:2 --head.epochs 3",
    ),
    "evaluate": (
        "score a run or an export on labelled data",
        "keras-transfer evaluate saved_models/photos data/ --json",
    ),
    "predict": (
        "answer for files, folders or lines",
        "keras-transfer predict saved_models/photos new/ --output out.csv",
    ),
    "export": ("publish a run as a new version", "keras-transfer export runs/photos-20260101-120000 --to saved_models"),
    "runs": ("list the runs, side by side", "keras-transfer runs"),
    "cache": ("list, size and clear caches", "keras-transfer cache --clear features"),
    "check": ("say what is wrong with the data", "keras-transfer check photos/"),
    "layers": ("blocks and layers of a backbone, and what `trainable` accepts", "keras-transfer layers resnet50"),
    "backbones": ("list the backbones", "keras-transfer backbones"),
    "tasks": ("list the tasks", "keras-transfer tasks"),
    "samples": ("list the samples", "keras-transfer samples"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    _open_closed_streams()
    parser, commands = _parser()
    try:
        words, fields = _split_words(words, commands)
        options = parser.parse_args(words)
    except SystemExit as stop:
        return int(stop.code or 0)
    except UsageError as error:
        print(f"keras-transfer: {error}", file=sys.stderr)
        return USAGE
    if not options.command:
        parser.print_help()
        return USAGE
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("ABSL_MIN_LOG_LEVEL", "3")
    with _stopped_by_sigterm():
        return _status_of(options, fields)


def _status_of(options: argparse.Namespace, fields: Sequence[str]) -> int:
    """Runs the command; what goes wrong becomes one clear message and an exit status."""
    try:
        options.overrides = _overrides(fields)
        return _run(options)
    except BrokenPipeError:
        # The reader of standard output went away: nothing is left to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno() if sys.__stdout__ else 1)
        return FAILED
    except KeyboardInterrupt as stop:
        _report(options, str(stop) or "stopped", getattr(stop, "run", None))
        return TERMINATED if _Terminated.received else INTERRUPTED
    except Exception as error:
        if options.debug:
            traceback.print_exc()
        usage = isinstance(error, UsageError | RecipeError)
        _report(options, f"keras-transfer {options.command}: {_reason(error)}")
        return USAGE if usage else FAILED


def _report(options: argparse.Namespace, message: str, run: Any = None) -> None:
    """What went wrong, on standard error; with --json also as the object on standard output."""
    print(message, file=sys.stderr, flush=True)
    if options.json:
        print(json.dumps({"error": message, **({"run": str(run.path)} if run is not None else {})}), flush=True)


def fit_script() -> int:
    """The main guard of a recipe file: `python recipes/x.py --head.epochs 2` is `keras-transfer fit` on it."""
    return main(["fit", *sys.argv])


class _Terminated:
    received = False


@contextlib.contextmanager
def _stopped_by_sigterm() -> Iterator[None]:
    """SIGTERM ends a training as Ctrl-C does, after its state is saved; a second one does not disturb the saving."""
    _Terminated.received = False
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: Any) -> None:
        if not _Terminated.received:
            _Terminated.received = True
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _open_closed_streams() -> None:
    """Makes standard streams that take any text: one may be closed, or unable to write the name of a file."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _reason(error: Exception) -> str:
    """The one clear message of an error."""
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return f"out of memory. Lower --data.batch_size or --backbone.image_size. ({str(error).splitlines()[:1]})"
    if isinstance(error, ValueError | OSError | RuntimeError | ImportError) and str(error):
        return str(error)
    return f"{type(error).__name__}: {error}. This is a fault of keras_transfer; --debug shows where"


def _run(options: argparse.Namespace) -> int:
    """The command; with --json, standard output holds its object alone, as the last line."""
    from keras_transfer import commands, listings

    command = getattr(commands, options.command, None) or getattr(listings, options.command)
    if not options.json:
        status, _ = command(options)
        return int(status)
    from keras_transfer.run_record import finite

    out = sys.stdout
    # Libraries that print would spoil the one JSON object, so all else goes to standard error.
    with contextlib.redirect_stdout(sys.stderr):
        status, result = command(options)
    print(json.dumps(finite(result)), file=out, flush=True)
    return int(status)


def _split_words(words: Sequence[str], commands: dict[str, argparse.ArgumentParser]) -> tuple[list[str], list[str]]:
    """The words that argparse reads, and those that are recipe fields with their values.

    Argparse does not know the fields, and would take the value of one that stands before SOURCE for SOURCE.

    Raises:
        UsageError: no such command, or an option that is near to one.
    """
    name = next((word for word in words if not word.startswith("-")), None)
    if name is None:
        return list(words), []
    if name not in commands:
        near = difflib.get_close_matches(name, commands, 1)
        raise UsageError(
            f"no such command: {name!r}; " + (f"did you mean {near[0]}?" if near else f"known: {', '.join(commands)}")
        )
    known = commands[name]._option_string_actions
    kept: list[str] = []
    fields: list[str] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, _ = word.partition("=")
        if word == "--":
            return [*kept, word, *rest], fields
        if name not in TAKE_FIELDS or not word.startswith("--") or option in known or option == "--version":
            kept.append(word)
            continue
        near = difflib.get_close_matches(option, known, 1, cutoff=0.8)
        if near and "." not in option:
            raise UsageError(f"{name}: no such option: {option}; did you mean {near[0]}?")
        fields.append(word)
        if not equals and rest and not rest[0].startswith("--"):
            fields.append(rest.pop(0))
    return kept, fields


def _overrides(words: Sequence[str]) -> dict[str, str]:
    """Recipe fields from the command line."""
    from keras_transfer.recipe import Recipe, override
    from keras_transfer.recipe_file import parse_overrides

    if not words:
        return {}
    try:
        changes = parse_overrides(words)
        override(Recipe(), changes)
    except RecipeError as error:
        raise UsageError("\n".join(error.faults)) from None
    except ValueError as error:
        raise UsageError(str(error)) from None
    return changes


def _parser() -> tuple[argparse.ArgumentParser, dict[str, argparse.ArgumentParser]]:
    """The parser of all commands, and each command's own."""
    parser = argparse.ArgumentParser(
        prog="keras-transfer",
        description="Transfer learning for Keras and TensorFlow: labelled data in, a fine-tuned and served model out.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    made: dict[str, argparse.ArgumentParser] = {}
    for name, (what, example) in COMMANDS.items():
        sub = commands.add_parser(
            name,
            help=what,
            description=f"{what[0].upper()}{what[1:]}.",
            epilog=f"example: {example}" + (_fields() if name == "fit" and _wants_help() else ""),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        sub.add_argument("--json", action="store_true", help="print one JSON object as the last line")
        sub.add_argument("--debug", action="store_true", help="show the traceback of a failure")
        made[name] = sub
    fit = made["fit"]
    fit.add_argument("source", nargs="?", help="a recipe file, a folder, a CSV/TSV/JSONL file, tfds:NAME, sample:NAME")
    fit.add_argument("--resume", metavar="RUN", help="go on with a stopped or failed run")
    fit.add_argument("--dry-run", action="store_true", help="read the data, say what would be done and take, and stop")
    evaluate = made["evaluate"]
    evaluate.add_argument("model", help="a run folder, an exported version, or a folder of versions")
    evaluate.add_argument("data", help="labelled data, as for fit")
    evaluate.add_argument("--split", help="default: test if the data has it, else all")
    predict = made["predict"]
    predict.add_argument("model", help="a run folder, an exported version, or a folder of versions")
    predict.add_argument("inputs", nargs="+", metavar="INPUT", help="files, folders, or - for lines of standard input")
    predict.add_argument("--output", metavar="FILE", help="write to a .csv or .jsonl file instead")
    predict.add_argument(
        "--draw", metavar="DIR", help="also write each picture with its boxes or mask into this folder"
    )
    export = made["export"]
    export.add_argument("run", help="a run folder")
    export.add_argument("--to", metavar="DIR", help="where models are published; default: saved_models")
    made["runs"].add_argument("--directory", default="runs", help="the folder of runs; default: runs")
    made["cache"].add_argument("--clear", metavar="KIND", nargs="?", const="all", help="clear one kind, or all")
    made["check"].add_argument("data", help="labelled data, as for fit")
    made["layers"].add_argument("backbone", help="a name that `keras-transfer backbones` lists")
    made["layers"].add_argument("--trainable", help="also count what this toggle would train")
    return parser, made


def _wants_help() -> bool:
    return "--help" in sys.argv or "-h" in sys.argv


def _fields() -> str:
    """All recipe fields with their defaults, for `fit --help`."""
    from keras_transfer.recipe import Recipe

    out = io.StringIO()

    def walk(prefix: str, values: dict[str, Any]) -> None:
        for name, value in values.items():
            if isinstance(value, dict) and name != "options":
                walk(f"{prefix}{name}.", value)
            else:
                out.write(f"  --{prefix}{name} ({value if value not in ('', None) else 'chosen'})\n")

    plain = Recipe().to_dict()
    plain.pop("format")
    walk("", plain)
    return f"\n\nfields of a recipe, with their defaults:\n{out.getvalue()}"


def _version() -> str:
    from keras_transfer import __version__

    return __version__
