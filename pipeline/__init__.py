"""The flow: from images in object storage to committed masks and class statistics."""
