"""Every way in which images get noise."""
