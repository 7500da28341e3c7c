"""The program with all commands: rnn-mnist COMMAND, or python -m rnn_mnist COMMAND."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from typing import NoReturn

from rnn_mnist import __version__, cli, flags
from rnn_mnist.config import InputError, did_you_mean

COMMANDS = {
    "train": "train a network; the classroom notebook's by default",
    "sweep": "train every combination of some settings, and compare the runs",
    "evaluate": "measure how often networks are right, and how sure they are",
    "predict": "say which digits are in pictures of your own",
    "draw": "open a page to draw a digit on and watch it being read",
    "plot": "draw what a network reads, thinks and gets wrong",
    "export": "write a network for PyTorch, ONNX, StableHLO or a web page",
}
HELP = f"""\
usage: rnn-mnist COMMAND [arguments]

A recurrent network reads a handwritten digit row by row and says which digit it is.

commands:
{chr(10).join(f"  {name:<10}{about}" for name, about in COMMANDS.items())}

rnn-mnist COMMAND --help explains a command.

flags:
  -h, --help                      Show this help.
  --version                       Show the version.
  --print-completion bash | zsh   Print a script that completes commands and flags
                                  on Tab: eval "$(rnn-mnist --print-completion bash)"
"""
# $2 is the word to complete, $3 the word before it.
COMPLETION = """\
_rnn_mnist() {{
  local words
  case "${{COMP_WORDS[1]}} $3" in
{cases}
    *) words="{commands}" ;;
  esac
  COMPREPLY=($(compgen -W "$words" -- "$2"))
}}
complete -o bashdefault -o default -F _rnn_mnist rnn-mnist
"""
SHELLS = {"bash": "", "zsh": "autoload -Uz compinit bashcompinit && compinit && bashcompinit\n"}


@cli.program
def main(words: Sequence[str]) -> int:
    """Run a command; returns its exit code."""
    command, rest = (words[0], words[1:]) if words else ("--help", [])
    if command in COMMANDS:
        return importlib.import_module(f"rnn_mnist.{command}").main(rest)
    if command in ("-h", "--help"):
        print(HELP, end="")
    elif command == "--version":
        print(f"rnn-mnist {__version__}")
    elif command == "--print-completion":
        print(completion(*rest[:1]), end="")
    else:
        hint = did_you_mean(command, COMMANDS) or f"; choose from {', '.join(COMMANDS)}"
        raise InputError(f"{command}: unknown command{hint}")
    return 0


def completion(shell: str = "") -> str:
    """The script with which a shell completes commands, flags and their choices."""
    if shell not in SHELLS:
        raise InputError(f"--print-completion: must be bash or zsh, not {shell!r}")
    cases = []
    for command in COMMANDS:
        options = importlib.import_module(f"rnn_mnist.{command}").Options
        parser = flags.Parser(options, command, several=command == "sweep")
        for name, flag in parser.flags.items():
            if flag.choices:
                cases.append(f'    "{command} {name}") words="{" ".join(flag.choices)}" ;;')
        cases.append(f'    "{command} "*) words="{" ".join([*parser.words, *parser.flags])}" ;;')
    return SHELLS[shell] + COMPLETION.format(cases="\n".join(cases), commands=" ".join(COMMANDS))


def program() -> NoReturn:
    """Run the program as the whole of this process."""
    cli.run_and_exit(main)


if __name__ == "__main__":
    program()
