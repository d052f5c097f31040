"""What is said of a bucket's errors."""

import pytest

from pipeline.errors import ErrorCode, Scope, StoreError
from pipeline.store.bucket_errors import NoCredentialsHereError, raise_store_error


@pytest.mark.parametrize(
    ("scheme", "looked_for"),
    [
        ("s3", "AWS_ACCESS_KEY_ID"),
        ("gs", "GOOGLE_APPLICATION_CREDENTIALS"),
        ("az", "AZURE_STORAGE_ACCOUNT_KEY"),
    ],
)
def test_missing_credentials_are_said_with_where_they_are_looked_for(
    scheme: str, looked_for: str
) -> None:
    """Whoever has none learns what to set, whatever the store."""
    with pytest.raises(StoreError, match=f"credentials found .*{looked_for}") as caught:
        raise_store_error(NoCredentialsHereError("none"), f"{scheme}://bucket/key")
    assert (caught.value.code, caught.value.scope) == (ErrorCode.FORBIDDEN, Scope.STORE)
