"""Google Cloud Storage and Azure Blob Storage, through obstore.

Credentials are what obstore finds: docs/cluster.md names where.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.errors import SettingError
from pipeline.store.access import Access
from pipeline.store.entry import Entry
from pipeline.store.obstore_client import ObstoreClient, check_name, opened_for_reading
from pipeline.store.obstore_pages import ObstorePages

if TYPE_CHECKING:
    from obstore.store import AzureConfig, AzureStore, ClientConfig, GCSConfig, GCSStore


@dataclass(frozen=True)
class Google:
    """Opens a bucket of Google Cloud Storage; as `Opens`.

    Attributes:
        bucket: Its name.
        timeout_s: As the attribute of `Storage`.
        access: How it is entered.
        endpoint_url: Where the store is, if not at Google.
    """

    bucket: str
    timeout_s: float
    access: Access
    endpoint_url: str | None

    def open(self, options: "ClientConfig", *, writes: bool) -> "GCSStore":
        """Implement `Opens.open`."""
        from obstore.store import GCSStore  # noqa: PLC0415 - most commands need none

        config: GCSConfig = {"bucket": self.bucket, "skip_signature": self.access.anonymous}
        if self.endpoint_url is not None:
            config["base_url"] = self.endpoint_url.rstrip("/")
        return GCSStore(
            config=config,
            client_options=options
            | {"default_headers": self._headers(writes=writes), "allow_http": self._is_plain},
            retry_config={"max_retries": 0},
        )

    @property
    def _is_plain(self) -> bool:
        return (self.endpoint_url or "").startswith("http://")

    def _headers(self, *, writes: bool) -> dict[str, str]:
        headers: dict[str, str] = {}
        if self.access.requester_pays:
            if self.access.gs_billing_project is None:
                raise SettingError(
                    f"requester_pays: reading gs://{self.bucket} is billed to a project, which "
                    "gs_billing_project names; give it"
                )
            headers["x-goog-user-project"] = self.access.gs_billing_project
        if writes and self.access.gs_kms_key is not None:
            headers["x-goog-encryption-kms-key-name"] = self.access.gs_kms_key
        return headers


@dataclass(frozen=True)
class Azure:
    """Opens a container of Azure Blob Storage; as `Opens`.

    Attributes:
        container: Its name.
        timeout_s: As the attribute of `Storage`.
        access: How it is entered.
        endpoint_url: Where the account is, if not at blob.core.windows.net.
        account: The storage account; None leaves it to the environment.
    """

    container: str
    timeout_s: float
    access: Access
    endpoint_url: str | None
    account: str | None

    def open(
        self,
        options: "ClientConfig",
        *,
        writes: bool,  # noqa: ARG002 - both are done the same
    ) -> "AzureStore":
        """Implement `Opens.open`."""
        from obstore.store import AzureStore  # noqa: PLC0415 - most commands need none

        config: AzureConfig = {
            "container_name": self.container,
            "skip_signature": self.access.anonymous,
        }
        if self.endpoint_url is not None:
            config["endpoint"] = self.endpoint_url
        if self.account is not None:
            config["account_name"] = self.account
        is_plain = (self.endpoint_url or "").startswith("http://")
        return AzureStore(
            config=config,
            client_options=options | {"allow_http": is_plain},
            retry_config={"max_retries": 0},
        )


class Cloud(ObstoreClient):
    """A bucket or container through obstore alone."""

    def __init__(self, opens: Google | Azure) -> None:
        """Name it; it is opened with the first request.

        Args:
            opens: Opens it.
        """
        super().__init__(opens, quotes_etags=True)
        self._place = opens

    def pages(self, folder_uri: str, *, is_deep: bool) -> ObstorePages:
        """As `Client.pages`. Raises StoreError for a folder that obstore can't name."""
        check_name(folder_uri.rstrip("/"))
        return ObstorePages(opened_for_reading(self._place), self, folder_uri, is_deep=is_deep)

    def listed(self, uri: str) -> Entry | None:
        """Implement `Client.listed`."""
        folder, _, name = uri.rpartition("/")
        is_there = name in self.pages(folder, is_deep=False).next_page().names
        return Entry(uri, "", 0) if is_there else None
