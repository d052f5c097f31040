"""What buckets answer, and what botocore, s3fs and obstore raise, as StoreError."""

from typing import NoReturn
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    ProxyConnectionError,
)
from botocore.parsers import ResponseParserError

from pipeline.errors import ErrorCode, Scope, StoreError

PRECONDITION = {"412", "PreconditionFailed", "ConditionNotMet", "BlobAlreadyExists"}
NOT_IMPLEMENTED = {"501", "NotImplemented"}
# The first byte that is asked for is beyond the end.
OUT_OF_RANGE = {"416", "InvalidRange"}
# Another conditional write was under way; S3 asks to try again.
CONFLICT = {"409", "ConditionalRequestConflict", "OperationAborted"}
THROTTLED = {
    *("429", "503", "SlowDown", "ServiceUnavailable", "TooManyRequests", "Throttling"),
    *("ThrottlingException", "RequestLimitExceeded", "RequestThrottled", "BandwidthLimitExceeded"),
    *("ServerBusy", "RateLimitExceeded", "UserRateLimitExceeded"),
}
# What HEAD says of anything that the store does not want: it has no body with a code.
UNSAID = {"400", "403"}
_PASSING = {"RequestTimeout", "RequestTimeoutException", "InternalError", "408", "IncompleteBody"}
_NO_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
NO_OBJECT = {"404", "NoSuchKey", "NotFound", "BlobNotFound", "ResourceNotFound"}
NOT_FOUND = NO_OBJECT | _NO_BUCKET
_OF_THE_BUCKET = {
    *_NO_BUCKET,
    *("UserProjectMissing", "UserProjectAccessDenied", "PublicAccessNotPermitted"),
    *("AllAccessDisabled", "InvalidBucketState", "InvalidBucketName"),
    *("PermanentRedirect", "TemporaryRedirect", "301", "307"),
}
_OF_THE_CREDENTIALS = {
    *("401", "ExpiredToken", "ExpiredTokenException", "InvalidToken", "TokenRefreshRequired"),
    *("InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException", "NotSignedUp"),
    *("SignatureDoesNotMatch", "AuthFailure", "AuthorizationHeaderMalformed", "AccountProblem"),
    *("RequestTimeTooSkewed", "RequestExpired", "InvalidSecurity", "MissingSecurityHeader"),
    *("AuthenticationRequired", "AuthenticationFailed", "InvalidAuthenticationInfo"),
    *("NoAuthenticationInformation", "AccountIsDisabled"),
}
# Of objects in an archive (S3 Glacier, Azure's archive tier) that nobody has restored: listings and
# HEAD show them as they show others.
_ARCHIVED = {"InvalidObjectState", "BlobArchived", "BlobBeingRehydrated"}
_FORBIDDEN = {
    *("403", "AccessDenied", "Forbidden", *_OF_THE_CREDENTIALS),
    *("AuthorizationFailure", "AuthorizationPermissionMismatch", "PublicAccessNotPermitted"),
    *("UserProjectMissing", "UserProjectAccessDenied"),
}
_NO_CREDENTIALS = {
    "s3": "no AWS credentials found (AWS_ACCESS_KEY_ID with AWS_SECRET_ACCESS_KEY, a profile in "
    "~/.aws, `aws sso login`, or the role of a machine or pod)",
    "gs": "no Google credentials found (GOOGLE_APPLICATION_CREDENTIALS, `gcloud auth "
    "application-default login`, or the metadata server of a machine or pod)",
    "az": "no Azure credentials found (AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, "
    "AZURE_CLIENT_ID with a secret or a federated token, or a managed identity)",
}
_ENDPOINTS = {
    "s3": "s3_endpoint_url, AWS_ENDPOINT_URL",
    "gs": "gs_endpoint_url",
    "az": "az_account, az_endpoint_url",
}
_NOBODY_THERE = (EndpointConnectionError, ConnectTimeoutError, ProxyConnectionError)

BUCKET_ERRORS = (OSError, ClientError, BotoCoreError, ResponseParserError)


class BodyBrokeError(OSError):
    """The headers arrived, but the body did not, or only a part of it."""


class NotS3Error(OSError):
    """Something answered that is no S3: a page for people, of a proxy or a console."""


class RefusedError(OSError):
    """The store has answered obstore with an error."""

    def __init__(self, status: int, code: str, message: str) -> None:
        """Take over what it says.

        Args:
            status: Of HTTP.
            code: The store's own; empty where it gives none.
            message: The store's own.
        """
        super().__init__(": ".join(filter(None, (code or str(status), message))))
        self.status = status
        self.code = code or str(status)


class NobodyThereError(OSError):
    """Nobody listens at the endpoint, or it has no address."""

    def __init__(self, server: str) -> None:
        """Name it.

        Args:
            server: Scheme, host and port.
        """
        super().__init__(server)
        self.server = server


class NoCredentialsHereError(OSError):
    """Nothing gives obstore credentials."""


class UnclearError(OSError):
    """An answer that obstore can't take, or does not tell enough of."""


def code_of(error: BaseException) -> str:
    """Return the code that S3 gives an error, else its status as text; empty if it gave none."""
    if isinstance(error, RefusedError):
        return error.code
    source = _source(error)
    if isinstance(source, ClientError):
        answer = source.response
        code = str(answer.get("Error", {}).get("Code", ""))
        return code or str(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", ""))
    return ""


_OF_A_GATEWAY = (502, 503, 504)


def is_page(error: BaseException) -> bool:
    """Return whether an error's answer was a page for people, as gateways and consoles send.

    An answer to HEAD has no body, whatever type of body its headers name.
    """
    source = _source(error)
    if not isinstance(source, ClientError) or source.operation_name.startswith("Head"):
        return False
    answer = source.response.get("ResponseMetadata", {})
    # Gateways say so of a store behind them that is not there for a while.
    if answer.get("HTTPStatusCode") in _OF_A_GATEWAY:
        return False
    return bool(answer.get("HTTPHeaders", {}).get("content-type", "").startswith("text/html"))


def may_pass(error: BaseException) -> bool:
    """Whether asking again can help: not after a signal, a refusal, or an answer of no S3."""
    code = code_of(error)
    if code in CONFLICT | THROTTLED | _PASSING:
        return True
    known = isinstance(error, BUCKET_ERRORS) and not isinstance(error, NotS3Error | UnclearError)
    return known and code not in NOT_IMPLEMENTED and not _is_refusal(error)


def raise_store_error(error: BaseException, uri: str) -> NoReturn:
    """Translate an error. Raises StoreError.

    Args:
        error: One of `BUCKET_ERRORS`.
        uri: What was asked for.
    """
    code = code_of(error)
    if isinstance(error, NotS3Error):
        raise StoreError(ErrorCode.FORBIDDEN, f"{uri}: {error}", Scope.STORE) from error
    if isinstance(error, UnclearError):
        _raise_unclear(error, uri)
    scope = _scope(error, code)
    if code in NOT_FOUND or isinstance(error, FileNotFoundError):
        missing = f"the bucket of {uri}" if code in _NO_BUCKET else uri
        raise StoreError(ErrorCode.NOT_FOUND, f"{missing} does not exist", scope) from error
    if isinstance(error, NoCredentialsError | NoCredentialsHereError):
        message = f"{uri}: {_NO_CREDENTIALS[_scheme(uri)]}"
        raise StoreError(ErrorCode.FORBIDDEN, message, Scope.STORE) from error
    if code in _ARCHIVED:
        message = f"{uri} lies in an archive; restore it, or leave it out of the input"
        raise StoreError(ErrorCode.ARCHIVED, message) from error
    if code in _FORBIDDEN or isinstance(error, PermissionError):
        message = f"{uri}: the store refuses: {error}"
        raise StoreError(ErrorCode.FORBIDDEN, message, scope) from error
    if code in THROTTLED:
        message = f"{uri}: the store asks to slow down"
        raise StoreError(ErrorCode.THROTTLED, message) from error
    _raise_other(error, uri, scope)


def _scheme(uri: str) -> str:
    return uri.partition(":")[0]


def _raise_unclear(error: UnclearError, uri: str) -> NoReturn:
    """Tell an object that Google unpacks on the way, without a length, from what is no store."""
    is_of_object = "Content-Length" in str(error)
    asked = "" if is_of_object else f"; check {_ENDPOINTS[_scheme(uri)]} and the credentials"
    scope = Scope.OBJECT if is_of_object else Scope.STORE
    raise StoreError(ErrorCode.FORBIDDEN, f"{uri}: {error}{asked}", scope) from error


def _raise_other(error: BaseException, uri: str, scope: Scope) -> NoReturn:
    reason = str(error) or type(error).__name__
    if _is_refusal(error):
        message = f"{uri}: {reason}; check bucket, region, endpoint and credentials"
        raise StoreError(ErrorCode.FORBIDDEN, message, scope) from error
    if server := _server(error):
        settings = _ENDPOINTS[_scheme(uri)]
        reason = f"nobody answers at {server} (check {settings} and the network)"
    message = f"{uri}: no answer from the store: {reason}"
    raise StoreError(ErrorCode.TIMEOUT, message, scope) from error


def _scope(error: BaseException, code: str) -> Scope:
    """Say what an error is true of: botocore's own are of credentials, regions and networks."""
    if isinstance(error, NobodyThereError):
        return Scope.STORE
    source = _source(error)
    of_object = (ParamValidationError, HTTPClientError, ResponseParserError)
    if isinstance(source, BotoCoreError) and not isinstance(source, of_object):
        return Scope.STORE
    if code in _OF_THE_CREDENTIALS:
        return Scope.STORE
    return Scope.BUCKET if code in _OF_THE_BUCKET else Scope.OBJECT


def _server(error: BaseException) -> str:
    """Name whom nobody answers at, the store or the proxy on the way; empty if that is not it."""
    if isinstance(error, NobodyThereError):
        return error.server
    source = _source(error)
    if not isinstance(source, _NOBODY_THERE):
        return ""
    url = urlsplit(source.kwargs.get("endpoint_url") or source.kwargs.get("proxy_url") or "")
    return f"{url.scheme}://{url.netloc}"


def _source(error: BaseException) -> BaseException | None:
    """Return botocore's error: s3fs raises some of Python's own, and keeps it as the cause."""
    if isinstance(error, BodyBrokeError):
        return None  # the headers were in order, whatever has come over the body
    return error if isinstance(error, ClientError | BotoCoreError) else error.__cause__


def _is_refusal(error: BaseException) -> bool:
    """Whether asking again can't help: bad names, profiles and regions, and answers 3xx or 4xx."""
    if isinstance(error, RefusedError):
        return 300 <= error.status < 500
    source = _source(error)
    if isinstance(source, ClientError):
        status = source.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 500)
        return bool(300 <= status < 500)
    passing = (HTTPClientError, *_NOBODY_THERE)
    return isinstance(source, BotoCoreError) and not isinstance(source, passing)
