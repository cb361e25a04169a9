from trtplug_registry.errors import TrtplugError as TrtplugError
