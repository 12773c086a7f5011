"""A dataset of the Hugging Face hub, by the library `datasets`."""

import re
from pathlib import Path
from typing import Any

from msmrec.artifacts import InputError, atomic_file, first_line
from msmrec.data.sources.table import Table


class HubTable(Table):
    """Interactions, and optionally items and users, from datasets of the Hugging Face hub.

    Each of them is named owner/name, owner/name:config or owner/name:config:split (by default train), or by a folder of
    files that `datasets.load_dataset` reads. It is fetched once, into hub/ of the data root, as Parquet; from there on
    it is a `Table`, with its columns, checks and fingerprint.

    Args:
        interactions: the dataset of interactions.
        items: the dataset of items.
        users: the dataset of users.
        revision: branch, tag or commit of `interactions`' repository, and of the others'; a commit makes a result
            repeatable.
        **table: see Table.

    Raises:
        InputError: when read: the library is not installed, or there is no such dataset, configuration or split.
    """

    def __init__(
        self,
        interactions: str,
        items: str | None = None,
        users: str | None = None,
        revision: str | None = None,
        **table: Any,
    ) -> None:
        super().__init__(interactions, items=items, users=users, **table)
        self.revision = revision

    @property
    def name(self) -> str:
        """`dataset`, or the name without its owner."""
        return self.dataset or Path(self.interactions.split(":")[0]).name

    def _find(self, name: str, root: Path) -> Path:
        stem = re.sub(r"[^\w.-]+", "--", name).strip("-") + (f"@{self.revision}" if self.revision else "")
        path = root / "hub" / f"{stem}.parquet"
        if not path.is_file():
            self._fetch(name, path)
        return path

    def _fetch(self, name: str, path: Path) -> None:
        try:
            import datasets
        except ImportError:
            raise InputError("HubTable reads with the library datasets: pip install 'msmrec[hub]'") from None
        repository, config, split = [*name.split(":"), "", ""][:3]
        try:
            table = datasets.load_dataset(repository, config or None, split=split or "train", revision=self.revision)
        except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
            reason = first_line(error.__cause__ or error)
            raise InputError(
                f"{name}: not to be had from the Hugging Face hub ({reason}); mend data.source, or put it at {path}"
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            table.to_parquet(str(temporary))
