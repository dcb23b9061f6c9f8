"""What all commands share: a refusal is one line on stderr and exit code 2, and `--help` ends with an example."""

from argparse import RawDescriptionHelpFormatter

from django.core.management.base import BaseCommand, CommandError, CommandParser, DjangoHelpFormatter

from annotate.errors import BothsidesError, Invalid


class Refused(CommandError):
    """Bad input; the name is what Django prints before the sentence."""

    def __init__(self, message: str):
        super().__init__(" ".join(message.split()), returncode=2)


class HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Leaves the example as it is written."""


class RefusingCommand(BaseCommand):
    """A command whose BothsidesErrors are refusals. `example` is one or more command lines."""

    example = ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs) -> CommandParser:
        kwargs.setdefault("formatter_class", HelpFormatter)
        if self.example:
            lines = "\n".join(f"  {line.strip()}" for line in self.example.strip().splitlines())
            kwargs.setdefault("epilog", f"example:\n{lines}")
        parser = super().create_parser(prog_name, subcommand, **kwargs)
        # The usage would hide the one line that says what is wrong; --help has it.
        parser.print_usage = lambda file=None: None
        return parser

    def execute(self, *args, **options):
        """Raises Refused, exit code 2, for every BothsidesError."""
        try:
            for name, value in options.items():
                _check_text(name, value)
            return super().execute(*args, **options)
        except BothsidesError as error:
            raise Refused(error.message) from error


def _check_text(name: str, value) -> None:
    """Raises Invalid for what the shell gave as bytes that are no text: neither the record nor a message holds it."""
    for one in value if isinstance(value, list) else [value]:
        if isinstance(one, str) and not one.isascii() and (text := one.encode(errors="replace").decode()) != one:
            raise Invalid(f"{name.upper()} is not UTF-8: {text}. A file may be renamed, or sent through a pipe.")
