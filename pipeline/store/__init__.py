"""The store: objects by URI, on a local disk or in a bucket, and the lock that lies there."""
