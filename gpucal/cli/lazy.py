"""A group of commands whose modules are imported when they are wanted, and not to list them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup


@dataclass(frozen=True)
class Entry:
    """Where a command is: its module, the name of the function or Typer there, and the line of the help."""

    module: str
    name: str
    line: str

    def load(self, command: str) -> Any:
        """The command itself, as click knows it."""
        found = getattr(import_module(self.module), self.name)
        if isinstance(found, typer.Typer):
            made = typer.main.get_command(found)
        else:
            alone = typer.Typer(add_completion=False)
            alone.command(command)(found)
            made = typer.main.get_command(alone)
        made.name = command
        return made


class LoadedOnUse(Mapping[str, Any]):
    """Command name -> command; importing waits for the first use of each."""

    def __init__(self, entries: Mapping[str, Entry]) -> None:
        self.entries = entries
        self._loaded: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._loaded:
            self._loaded[name] = self.entries[name].load(name)
        return self._loaded[name]

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __len__(self) -> int:
        return len(self.entries)


class LazyGroup(TyperGroup):
    """A group that lists its commands by name and line; subclasses say in ``ENTRIES`` what they are."""

    ENTRIES: Mapping[str, Entry] = {}

    def __init__(self, **given: Any) -> None:
        super().__init__(**given)
        self.commands: Any = LoadedOnUse(self.ENTRIES)

    def list_commands(self, ctx: Any) -> list[str]:
        """The names of the commands, in the order of the help."""
        return list(self.ENTRIES)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help without loading the commands."""
        self._board().format_help(ctx, formatter)

    def shell_complete(self, ctx: Any, incomplete: str) -> Any:
        """Complete the name of a command without loading any."""
        return self._board().shell_complete(ctx, incomplete)

    def _board(self) -> TyperGroup:
        """A group that looks like this one, of commands that are a name and a line."""
        listed: dict[str, Any] = {
            name: TyperCommand(name, help=entry.line) for name, entry in self.ENTRIES.items()
        }
        board = TyperGroup(
            name=self.name,
            help=self.help,
            params=self.params,
            commands=listed,
            rich_markup_mode=self.rich_markup_mode,
        )
        board.no_args_is_help = self.no_args_is_help
        return board
