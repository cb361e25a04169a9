"""What a report says beyond the partition: work, the picture of blocks, and what would change a verdict."""

from trtplug.insight.flops import flops_of
from trtplug.insight.picture import Crossing, Unit, picture
from trtplug.insight.suggestions import Suggestion, suggest

__all__ = ["Crossing", "Suggestion", "Unit", "flops_of", "picture", "suggest"]
