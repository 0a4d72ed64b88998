"""The keys of the config file that `distseq train` takes as options, and `distseq.train` as arguments."""

from typing import NamedTuple

from distseq.config.keys import Key, keys, noted
from distseq.config.schema import TABLES


class Option(NamedTuple):
    """An option, and the key of the config file that it replaces."""

    table: str
    key: Key

    @property
    def help(self) -> str:
        """The description, the kinds of scheduler or pool that use it, and the default, in click's form."""
        return noted(self.key.meaning.description, self.key.meaning.users, self.key.default_text)


# Name -> option, in the order in which they are shown
OPTIONS: dict[str, Option] = {
    key.meaning.option: Option(table, key)
    # The order of `--help`: what is trained, how it is scheduled, where it runs.
    for table in ("run", "scheduler", "pool", "checkpoint")
    for key in keys(TABLES[table])
    if key.meaning.option
}
