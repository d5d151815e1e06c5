"""Connection to a Dask scheduler: its address, and the keys by which engine, scheduler and workers know each other."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jsc_explore.errors import FieldError


@dataclass(frozen=True)
class SchedulerConnection:
    """The address of a scheduler, and the PEM files of TLS: the certificate to trust, one's own, and its key.

    Dask pickles what it sends: who can connect to an engine, a scheduler or a worker can run code there. Over
    ``tls://`` each side shows a certificate that ``ca_file`` has signed. Raises FieldError for an invalid address,
    for a missing or unreadable file, and for an address without TLS unless ``is_insecure`` says that it is meant.
    """

    address: str
    ca_file: Path | None = None
    certificate: Path | None = None
    key: Path | None = None
    is_insecure: bool = False

    def __post_init__(self) -> None:
        """Check the address and the files."""
        if not re.fullmatch(r"(tls|tcp|ucx|ucxx)://\S+:\d+", self.address):
            raise FieldError("scheduler", self.address, "is no address of a Dask scheduler", "try 'tls://head:8786'")
        files = {"tls_ca_file": self.ca_file, "tls_cert": self.certificate, "tls_key": self.key}
        if not self.is_encrypted:
            if not self.is_insecure:
                rule = "is not encrypted: whoever reaches this scheduler can run code as you"
                remedy = "use tls://, or --insecure-scheduler where everybody in the network may do that"
                raise FieldError("scheduler", self.address, rule, remedy)
            return
        for name, path in files.items():
            if path is None:
                raise FieldError(name, "", "is needed for tls://", "docs/cluster.md says how to make the files")
            try:
                path.open("rb").close()
            except OSError as error:
                raise FieldError(name, str(path), "cannot be read", "give the path of a PEM file") from error

    @property
    def is_encrypted(self) -> bool:
        """Whether the connection is by TLS with the certificates of both sides."""
        return self.address.startswith("tls://")

    def security(self) -> Any:
        """Return what Dask's client needs to connect; FieldError if a file holds no certificate or key."""
        from distributed.security import Security

        if not self.is_encrypted:
            return None
        security = Security(
            tls_ca_file=str(self.ca_file),
            tls_client_cert=str(self.certificate),
            tls_client_key=str(self.key),
            require_encryption=True,
        )
        try:
            security.get_connection_args("client")
        except OSError as error:
            text = f"{self.ca_file}, {self.certificate}, {self.key}"
            rule = "are no certificate with its key"
            raise FieldError("tls_cert", text, rule, "docs/cluster.md says how to make the files") from error
        return security
