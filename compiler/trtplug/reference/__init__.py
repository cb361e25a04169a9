"""The reference executor: what a finished TensorRT network means, as Torch code that runs on any device."""

from trtplug.reference.errors import LayerError as LayerError
from trtplug.reference.errors import MissingWeights as MissingWeights
from trtplug.reference.errors import UnsupportedLayer as UnsupportedLayer
from trtplug.reference.lift import lift as lift
from trtplug.reference.module import LiftedModule as LiftedModule
