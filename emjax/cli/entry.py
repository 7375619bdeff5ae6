"""The entry point: every failure becomes one line on standard error and an exit code.

0 done, 1 bad input or output, 2 wrong usage, 130 interrupted (Ctrl-C), 143 and 129 ended by SIGTERM and SIGHUP. No
unfinished file is left in any case. With EMJAX_TRACEBACK=1 Python's own report is shown.
"""

import contextlib
import gc
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType
from typing import Any

import typer

from emjax.cli.commands import app

# Wrong usage as typer raises it, whichever click it brings along.
_Usage: type[Exception] = typer.BadParameter.__mro__[1]


class _Stopped(BaseException):
    """A signal asked the command to end: unwinds through every `finally`, and past every `except Exception`."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


def main() -> None:
    """Run the command that `sys.argv` asks for, and exit."""
    _use_cache()
    gc.set_threshold(100_000)  # imports and traces leave much and little of it is garbage: a twentieth of a short run
    try:
        with _signals():
            code = app(standalone_mode=False)
            _flush()
    except _Stopped as stop:
        why = "interrupted" if stop.signum == signal.SIGINT else "ended by a signal"
        _say(f"{why}; no unfinished file is left")
        # Threads inside compiled code cannot be stopped, and the interpreter would wait for them.
        os._exit(128 + stop.signum)
    except Exception as err:
        if os.environ.get("EMJAX_TRACEBACK"):
            raise
        code = _explain(err)
        with contextlib.suppress(OSError):
            _flush()
    if code:
        sys.exit(code)


def command() -> None:
    """`main` as a process of its own, which ends at once: files are closed, and what else is tidied up takes JAX and
    the interpreter half a second, the system nothing."""
    code: Any = 0
    try:
        main()
    except SystemExit as stop:
        code = stop.code
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code if isinstance(code, int) else int(bool(code)))


def _explain(err: Exception) -> int:
    """Say what went wrong; returns the exit code."""
    if isinstance(err, _Usage):
        context = getattr(err, "ctx", None)
        message, code = err.format_message(), err.exit_code  # type: ignore[attr-defined]
        # Some of the messages ("Input should be greater than ...") keep the value to themselves.
        details: list[dict[str, Any]] = getattr(err.__cause__, "errors", list)()
        given = repr(details[0].get("input")) if details else ""
        if type(err).__name__ == "NoArgsIsHelpError":
            print(message)  # of the bare command: its help
        else:
            message = message.removeprefix("Invalid value: ").replace("Value error, ", "").rstrip(".")
            message += "" if given in message else f", got {given}"
            _say(f"{message} (see {context.command_path if context else 'emjax'} --help)")
        return int(code)
    if isinstance(err, BrokenPipeError):
        return 1  # who read our output has gone away
    if isinstance(err, MemoryError) or "RESOURCE_EXHAUSTED" in str(err):
        _say("the memory is too small for this image; crop it, or take smaller tiles (--tile)")
    elif isinstance(err, ValueError | TypeError | RuntimeError | OSError):
        _say(str(err) or type(err).__name__)
    else:
        _say(f"{type(err).__name__}: {err}; this is a fault of emjax (EMJAX_TRACEBACK=1 shows where): please report it")
    return 1


def _flush() -> None:
    """Write out standard output while errors can still be told; at exit Python would print a traceback."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is left goes nowhere
        raise


def _say(message: str) -> None:
    if sys.stderr is None:  # a print to None would go to standard output
        return
    with contextlib.suppress(OSError):  # a closed standard error
        print(f"emjax: {' '.join(message.split())}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _signals() -> Iterator[None]:
    """SIGINT, SIGTERM and SIGHUP unwind the command; those that were ignored (nohup) stay so."""

    def stop(signum: int, frame: FrameType | None) -> None:
        raise _Stopped(signum)

    before = {}
    if threading.current_thread() is threading.main_thread():
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _use_cache() -> None:
    """Switch on JAX's persistent compilation cache: the second call of a command compiles nothing.

    The user's cache folder, unless JAX_COMPILATION_CACHE_DIR says otherwise. JAX reads these settings at import.
    """
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        root = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
        folder = os.path.join(root, "emjax", "jax")
        try:
            os.makedirs(folder, exist_ok=True)
        except OSError:
            return  # a home that cannot be written to costs compile time, not the recovery
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    # Likewise a cache on a full disk.
    warnings.filterwarnings("ignore", message=".*persistent compilation cache.*")
