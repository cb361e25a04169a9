"""What TensorRT's layers compute, in Torch.

Every function here is the target of a node in a lifted graph: importable by name, taking tensors and plain constants
only (int, float, bool, str, None, dtype and lists of them), and independent of TensorRT. Where an argument may be given
by the network at run time, it is a list of ints or a 1-D integer tensor. Inputs that break a rule of the layer raise
ValueError or IndexError; `LiftedModule` adds the layer's name.

NaN is carried through, as Torch does. TensorRT promises nothing about it: on a GPU maxima, minima and clips may lose
it.
"""
