"""Panics of libraries that are written in Rust, as obstore and delta-rs are."""


def is_panic(error: BaseException) -> bool:
    """Return whether an error is a panic: no `Exception`, so it passes by who expects one.

    Args:
        error: Whatever a library has raised.
    """
    return type(error).__name__ == "PanicException"
