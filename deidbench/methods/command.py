"""Any program that treats a folder of images."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from deidbench.errors import DeidbenchError
from deidbench.types import Sample

from ._files import match

IN, OUT = "{in}", "{out}"
LAST_WORDS = 300  # characters of what a program said before it failed


class Command:
    """``command:prog {in} {out}``: a program that reads photographs and writes treated ones.

    It runs once, without a shell: ``{in}`` becomes a folder that holds the photographs, laid out as
    in the dataset, and ``{out}`` an empty folder, in which treated ones are looked for at the same
    paths (with any image suffix). What it leaves out counts as a failure. It runs again in every
    evaluation, since only its output shows whether it changed.

    Args:
        argument: the command, quoted as for a POSIX shell.
        timeout: seconds after which the program, and what it started, is stopped.
    Raises:
        DeidbenchError: the command has no {in} or {out}, its program is not found, it runs too
            long, ends with another exit code than 0, or writes nothing.
    """

    version = 1
    strength: float | None = None
    trained_against: Sequence[str] = ()
    needs_argument = True

    def __init__(self, argument: str | None = None, timeout: float = 3600) -> None:
        self.words = _words(argument)
        program = shutil.which(self.words[0])
        if program is None:
            raise DeidbenchError(f"command: no program '{self.words[0]}'. Give its full path.")
        if not timeout > 0:
            raise DeidbenchError(f"command: timeout must be above 0 seconds, but got {timeout}.")
        self.name = f"command:{Path(self.words[0]).name}"
        self.timeout = timeout
        # A program beside us is meant by its path, wherever it runs.
        self.words[0] = os.path.abspath(program)  # noqa: PTH100  (a link keeps its name)

    def treat(self, samples: Sequence[Sample], workspace: Path) -> Mapping[str, Path]:
        """Run the program over copies of the photographs; sample ids to what it wrote."""
        source, target = workspace / "in", workspace / "out"
        target.mkdir()
        _copy(samples, source)
        self._run({IN: str(source), OUT: str(target)})
        found = match(samples, target)
        if not found:
            raise DeidbenchError(
                f"'{self.name}' ended well, but wrote none of the {len(samples)} images: expected, "
                f"for one, {{out}}/{samples[0].id}. Look at its options."
            )
        return found

    def _run(self, folders: Mapping[str, str]) -> None:
        words = [_filled(word, folders) for word in self.words]
        # A group of its own: what the program started must not outlive it.
        with subprocess.Popen(  # noqa: S603  (what it runs is what the user asked for)
            words, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace", start_new_session=True,
        ) as process:  # fmt: skip
            try:
                said, _ = process.communicate(timeout=self.timeout)
            except subprocess.TimeoutExpired as error:
                _stop(process)
                raise DeidbenchError(
                    f"'{self.name}' was stopped after {self.timeout:g} s. Give it more time with "
                    "--set timeout=SECONDS."
                ) from error
            except BaseException:
                _stop(process)
                raise
        if process.returncode:
            raise DeidbenchError(
                f"'{self.name}' ended with exit code {process.returncode}: {_end(said)}. Mend the "
                "command, and try it by hand."
            )


def _words(argument: str | None) -> list[str]:
    try:
        words = shlex.split(argument or "")
    except ValueError as error:
        raise DeidbenchError(f"command: {argument}: {error}. Close the quotes.") from error
    text = " ".join(words[1:])
    if IN not in text or OUT not in text:
        raise DeidbenchError(
            f"command: expected a program with {IN} and {OUT}, but got '{argument or ''}'. "
            f"Write 'command:prog {IN} {OUT}'."
        )
    return words


def _filled(word: str, folders: Mapping[str, str]) -> str:
    for mark, folder in folders.items():
        word = word.replace(mark, folder)
    return word


def _copy(samples: Sequence[Sample], folder: Path) -> None:
    """Copies, not links: a program that writes into its input must not reach the originals."""
    for sample in samples:
        target = folder / sample.id
        if not target.resolve().is_relative_to(folder.resolve()):
            raise DeidbenchError(f"sample id '{sample.id}' leaves its folder. Rename the file.")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            shutil.copyfile(sample.path, target)
        except OSError:
            continue  # alignment has already counted what cannot be read


def _stop(process: subprocess.Popen[str]) -> None:
    """Stop the program and all that it started."""
    if hasattr(os, "killpg"):
        os.killpg(process.pid, signal.SIGKILL)
    else:  # Windows
        process.kill()
    process.wait()


def _end(said: str) -> str:
    """The last words of a program, on one line."""
    return " ".join(said.split())[-LAST_WORDS:] or "it said nothing"
