"""What every dataset family is: a Source, which knows its files."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from msmrec.columns import RAW_ITEM_ID, RAW_USER_ID, TIMESTAMP
from msmrec.data.interactions import RawData


class FileColumns(NamedTuple):
    """What a file of interactions calls its columns, and what stands between them in CSV."""

    user: str = RAW_USER_ID
    item: str = RAW_ITEM_ID
    timestamp: str | None = TIMESTAMP  # None: file order stands in for time, whatever columns there are
    separator: str = ","


class Source(ABC):
    """A dataset family: knows its files."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Short name, used for folders and tables."""

    @property
    def file_columns(self) -> FileColumns:
        """The words of its files, in which a finished run may be asked, too."""
        return FileColumns()

    @abstractmethod
    def fingerprint(self, root: Path) -> str:
        """What `read` depends on: the content of its files, or its settings."""

    @abstractmethod
    def read(self, root: Path) -> RawData:
        """Reads the raw files under `root`, downloading them first where they are missing."""
