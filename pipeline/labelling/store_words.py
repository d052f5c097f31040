"""What a store calls its rights, and where its tools look for credentials: words for remedies."""

from dataclasses import dataclass


@dataclass(frozen=True)
class StoreWords:
    """The words of one kind of store.

    Attributes:
        credentials: Where they are looked for.
        reads: The rights to list and read.
        read: The right to read.
        writes: The rights to list, read and write.
        ways_in: Settings without which an input may be refused.
        ways_out: What an output may demand beside.
        endpoint: The settings that say where it is; the first one is the storage's attribute.
    """

    credentials: str
    reads: str
    read: str
    writes: str
    ways_in: str
    ways_out: str
    endpoint: str


_S3 = StoreWords(
    "AWS_PROFILE, AWS_ACCESS_KEY_ID, the role of the machine",
    "list and read (s3:ListBucket, s3:GetObject) there",
    "read (s3:GetObject) there",
    "list, read and write (s3:ListBucket, s3:GetObject, s3:PutObject) there",
    ", or that input_anonymous (a public bucket) or requester_pays is set",
    ", and use the key that s3_kms_key_id names, if the bucket demands one",
    "s3_endpoint_url={} (or AWS_ENDPOINT_URL)",
)
_GOOGLE = StoreWords(
    "GOOGLE_APPLICATION_CREDENTIALS, the service account of the machine or pod",
    "list and read (storage.objects.list, storage.objects.get) there",
    "read (storage.objects.get) there",
    "list, read and write (storage.objects.list, .get, .create and, for the lock, .delete) there",
    ", or that input_anonymous (a public bucket) or requester_pays with gs_billing_project is set",
    ", and that the store may use the key that gs_kms_key names, if it does",
    "gs_endpoint_url={}",
)
_AZURE = StoreWords(
    "AZURE_STORAGE_ACCOUNT_KEY, AZURE_CLIENT_ID, the identity of the machine or pod",
    "list and read (the role Storage Blob Data Reader) there",
    "read (the role Storage Blob Data Reader) there",
    "list, read and write (the role Storage Blob Data Contributor) there",
    ", or that input_anonymous (a public container) is set",
    "",
    "az_account, az_endpoint_url={}",
)


def words_for(uri: str) -> StoreWords:
    """Return the words of the store that a URI names; S3's for a disk, which has none."""
    return {"gs": _GOOGLE, "az": _AZURE}.get(uri.partition(":")[0], _S3)


def endpoint_of(words: StoreWords) -> str:
    """Return the name of the setting that holds the endpoint."""
    names = ("gs_endpoint_url", "az_endpoint_url")
    return next((name for name in names if name in words.endpoint), "s3_endpoint_url")
