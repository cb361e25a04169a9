"""Split a lowered graph into the fewest TensorRT blocks, and put the blocks and the rest back together.

    partition(gm, supported)   which nodes form which block, which stay in Torch
    extract(gm, block)         one block as a GraphModule of its own
    link(gm, parts, runners)   the outer GraphModule, each block being one call of its runner

The graph is read only: neither function changes `gm`. Expected is a graph after lowering: placeholders are the user's
inputs, parameters and constants are `get_attr`, `node.meta["val"]` holds fake values, the output is a flat tuple.

How a node is treated:

* **Compute nodes** have a rank. Over its inputs, a TensorRT node takes the largest of (rank of a TensorRT input, rank
  of a Torch input + 1, 1), a Torch node the largest rank of its inputs, or 0. Nodes of equal rank form one block.
* **Constants** (weights and pure functions of weights and of the placeholders' sizes) have no rank; every block that
  uses them gets its own copy. One that `supported` refuses is computed by Torch and read by blocks as an input.
* **Sizes** have no rank. A block derives a size from the shapes of its tensor inputs, else takes it as an int64 input
  after its tensors; the runner is then called with the Python int or SymInt. Outside of blocks every size is read
  again from the placeholders (or wherever its symbols first appear), so that no block has an output only because its
  size is asked.
* Nodes that **write** to a tensor, assert, or have other effects stay in Torch and in their order; a tensor that is
  written in place is read by blocks before or after the write as in the original graph, and views of it stay in
  Torch.
"""

from trtplug.partition.blocks import partition
from trtplug.partition.extract import extract
from trtplug.partition.link import link
from trtplug.partition.value import Block, Partition, tensor_bytes

__all__ = ["Block", "Partition", "extract", "link", "partition", "tensor_bytes"]
