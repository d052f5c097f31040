"""Numbers as people read them: the same form all over the page."""

_THIN = "\u202f"
_MINUS = "\u2212"


def whole(number: int) -> str:
    """Write a count: 1,234,567."""
    return f"{number:,}"


def percent(share: float) -> str:
    """Write a share as per cent; what is there is never 0.0."""
    if 0 < share < 0.0005:
        return f"<0.1{_THIN}%"
    if 0.9995 <= share < 1:
        return f">99.9{_THIN}%"
    return f"{100 * share:.1f}{_THIN}%"


def points(change: float) -> str:
    """Write the change of a share in percentage points, with its sign."""
    return signed(100 * change, 1) or "0.0"


def signed(change: float, decimals: int) -> str:
    """Write a change with its sign; empty where it rounds to nothing."""
    if not round(change, decimals):
        return ""
    return f"{'+' if change > 0 else _MINUS}{abs(change):,.{decimals}f}"


def three(value: float | None) -> str:
    """Write a confidence: 0.987; a dash for none."""
    return "\u2013" if value is None else f"{value:.3f}"


def duration(seconds: float) -> str:
    """Write a time in its two largest units."""
    if seconds < 60:
        return f"{seconds:.1f}{_THIN}s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes}{_THIN}min {rest}{_THIN}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,}{_THIN}h {minutes}{_THIN}min"
