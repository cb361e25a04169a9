"""Writing real TensorRT networks: the checked builder, its finished product, and the engine build."""

from trtplug.network.builder import NetworkBuilder as NetworkBuilder
from trtplug.network.finished import Binding as Binding
from trtplug.network.finished import Network as Network
