"""S3 as most buckets are: obstore asks, and s3fs where obstore can't, or does not see enough.

The first request of a process to a bucket is made by s3fs. It says where the bucket is, and with
which credentials: profiles, roles, SSO, regions and styles of addresses are botocore's matter.
"""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from pipeline.store.access import Access
from pipeline.store.bucket import Answer, bucket_of
from pipeline.store.bucket_errors import RefusedError, UnclearError
from pipeline.store.entry import Entry
from pipeline.store.obstore_client import ObstoreClient, can_name
from pipeline.store.s3_client import Address, S3Client, S3Pages

if TYPE_CHECKING:
    from obstore.store import ClientConfig, S3Config, S3Credential, S3Store

_log = logging.getLogger(__name__)

# botocore renews credentials ten minutes before they end at the latest; obstore asks for them five
# minutes before what is said here.
_CREDENTIALS_LAST = timedelta(minutes=10)
# What a bucket of another region says; s3fs asks there, and remembers it.
_ELSEWHERE = {
    *("301", "302", "307", "PermanentRedirect", "TemporaryRedirect"),
    *("AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
}

_Answered = TypeVar("_Answered")


_OPENING = threading.Lock()


def open_s3(endpoint_url: str | None, timeout_s: float, access: Access) -> "S3":
    """Open S3, or find it as it is open already in this process.

    Args:
        endpoint_url: As the attribute of `Storage`.
        timeout_s: As the attribute of `Storage`.
        access: How it is entered.
    """
    with _OPENING:  # threads that begin together want one, too
        return _open(endpoint_url, timeout_s, access)


@lru_cache(maxsize=64)
def _open(endpoint_url: str | None, timeout_s: float, access: Access) -> "S3":
    return S3(S3Client(endpoint_url, timeout_s, access), timeout_s, access)


class S3:
    """S3, through obstore and s3fs."""

    def __init__(self, careful: S3Client, timeout_s: float, access: Access) -> None:
        """Open it.

        Args:
            careful: Through s3fs.
            timeout_s: As the attribute of `Storage`.
            access: How it is entered.
        """
        self._careful = careful
        self._timeout_s = timeout_s
        self._access = access
        self._addresses: dict[str, Address] = {}
        self._through_s3fs: set[str] = set()

    def get(
        self,
        uri: str,
        if_match: str | None,
        max_bytes: int | None,
        span: range | None = None,
    ) -> tuple[Answer, bytes]:
        """Implement `Client.get`."""
        return self._ask(uri, lambda client: client.get(uri, if_match, max_bytes, span))

    def put(self, uri: str, data: bytes, *, if_absent: bool) -> Answer:
        """Implement `Client.put`."""
        return self._ask(uri, lambda client: client.put(uri, data, if_absent=if_absent))

    def head(self, uri: str) -> Answer:
        """Implement `Client.head`."""
        return self._ask(uri, lambda client: client.head(uri))

    def get_a_byte(self, uri: str) -> None:
        """Implement `Client.get_a_byte`."""
        self._careful.get_a_byte(uri)

    def delete(self, uri: str) -> None:
        """Implement `Client.delete`."""
        self._ask(uri, lambda client: client.delete(uri))

    def pages(self, folder_uri: str, *, is_deep: bool) -> S3Pages:
        """As `Client.pages`, through s3fs.

        obstore takes a truncated page without a token for the last one, an error and a page for
        people for an empty listing, `folder/` for `folder`, and ends at a key with two slashes.
        """
        return self._careful.pages(folder_uri, is_deep=is_deep)

    def listed(self, uri: str) -> Entry | None:
        """Implement `Client.listed`."""
        return self._careful.listed(uri)

    def _ask(self, uri: str, request: Callable[[ObstoreClient | S3Client], _Answered]) -> _Answered:
        if not can_name(uri):
            return request(self._careful)
        bucket = bucket_of(uri)
        address = self._addresses.get(bucket)
        if address is not None and bucket not in self._through_s3fs:
            try:
                return request(self._through_obstore(bucket, address))
            except RefusedError as error:
                if error.code not in _ELSEWHERE:
                    raise
            except UnclearError as error:
                self._give_up(bucket, str(error))
        answer = request(self._careful)
        self._settle(bucket, address)
        return answer

    def _settle(self, bucket: str, before: Address | None) -> None:
        """Go on with obstore where s3fs has found the bucket, unless that is where it was."""
        after = self._careful.addresses.get(bucket)
        if after is None or (after == before and bucket not in self._through_s3fs):
            self._give_up(bucket, "its requests are signed or redirected in another way")
        else:
            self._addresses[bucket] = after

    def _give_up(self, bucket: str, reason: str) -> None:
        if bucket not in self._through_s3fs:
            _log.info("bucket %s is asked through s3fs from now on: %s", bucket, reason)
        self._through_s3fs.add(bucket)

    def _through_obstore(self, bucket: str, address: Address) -> ObstoreClient:
        return ObstoreClient(_Opens(bucket, address, self._timeout_s, self._access, self._careful))


@dataclass(frozen=True)
class _Opens:
    """Opens a bucket where s3fs has found it; as `Opens`."""

    bucket: str
    address: Address
    timeout_s: float
    access: Access
    careful: S3Client

    def open(self, options: "ClientConfig", *, writes: bool) -> "S3Store":
        """Implement `Opens.open`."""
        from obstore.store import S3Store  # noqa: PLC0415 - most commands need none

        client_options = options | _transport(self.address.url, self.careful)
        config: S3Config = {
            "bucket": self.bucket,
            # The bucket stands in it, in whichever style. The environment has been heard.
            "endpoint": self.address.url,
            "aws_endpoint_url_s3": self.address.url,
            "virtual_hosted_style_request": True,
            "region": self.address.region,
            "skip_signature": self.access.anonymous,
            "request_payer": self.access.requester_pays,
            # Buckets with object lock want one.
            "checksum_algorithm": "SHA256",
            "disable_bulk_delete": True,
        }
        if writes and self.access.kms_key_id is not None:
            config["server_side_encryption"] = "aws:kms"
            config["sse_kms_key_id"] = self.access.kms_key_id
        return S3Store(
            config=config,
            client_options=client_options,
            retry_config={"max_retries": 0},
            credential_provider=None if self.access.anonymous else self._credentials,
        )

    def _credentials(self) -> "S3Credential":
        found = self.careful.credentials()
        return {
            "access_key_id": found.access_key,
            "secret_access_key": found.secret_key,
            "token": found.token,
            "expires_at": datetime.now(UTC) + _CREDENTIALS_LAST,
        }


def _transport(url: str, careful: S3Client) -> "ClientConfig":
    if url.startswith("http://"):
        return {"allow_http": True}
    # botocore's, or that of the setting `ca_bundle`; the system's are trusted as well.
    return {"root_certificate": Path(careful.ca_bundle()).read_bytes()}
