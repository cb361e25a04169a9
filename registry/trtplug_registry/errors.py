class TrtplugError(Exception):
    """Base of every error that trtplug raises on purpose."""
