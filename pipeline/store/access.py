"""How a bucket is entered: input and output may want it differently."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Access:
    """What goes with every request to a bucket.

    Attributes:
        anonymous: Whether requests are not signed, as public buckets want it.
        requester_pays: Whether the reader agrees to pay for what is read.
        kms_key_id: The key of AWS KMS that what is written to S3 is encrypted with; None leaves
            it to the bucket.
        gs_kms_key: The same of Google's Cloud KMS.
        gs_billing_project: Google's project that pays for what is read.
    """

    anonymous: bool = False
    requester_pays: bool = False
    kms_key_id: str | None = None
    gs_kms_key: str | None = None
    gs_billing_project: str | None = None

    def for_s3fs(self) -> dict[str, Any]:
        """Return it as options of s3fs, which takes each to the requests that know it."""
        options: dict[str, Any] = {}
        if self.anonymous:
            options["anon"] = True
        if self.requester_pays:
            options["requester_pays"] = True
        if self.kms_key_id is not None:
            encryption = {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": self.kms_key_id}
            options["s3_additional_kwargs"] = encryption
        return options
