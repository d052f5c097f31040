"""The form of an input: images as files, or inside of tars or Parquet files."""

from typing import Literal

from pipeline.inputs.tars import is_tar
from pipeline.store.uri import has_wildcard

Form = Literal["files", "tar", "parquet"]


def named_form(input_uri: str) -> Form:
    """Return the form that an input's own name asks for.

    Args:
        input_uri: What the user named. One Parquet file is a manifest by its name, as it always
            was; a pattern of them names none.
    """
    if is_tar(input_uri):
        return "tar"
    if has_wildcard(input_uri) and input_uri.lower().endswith(".parquet"):
        return "parquet"
    return "files"


def form_of(input_uri: str, asked: Form) -> Form:
    """Return the form that an input is read in: what its name says goes first.

    Args:
        input_uri: What the user named.
        asked: The setting.
    """
    named = named_form(input_uri)
    return asked if named == "files" else named
