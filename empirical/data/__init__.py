"""Training data: always the same samples, whatever the width.

sources       the samples by name, seeded, disjoint from the probe
image_files   MNIST, Fashion-MNIST, CIFAR in a folder of the user's
array_file    arrays in an .npz file; free_memory: whether they fit
text          words and their neighbours
"""
