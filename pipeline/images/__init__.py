"""Images: bytes to pixels and masks to bytes, without storage."""
