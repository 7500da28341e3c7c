"""The numbers that keep random draws apart.

JAX's `split(key)[i]` equals `fold_in(key, i)`, so two users of one key would draw the same bits.
Every user therefore first folds its own purpose into the key, and nothing else uses the result.
"""

# Folded into a run's seed.
INIT = 0  # The initial parameters.
SHUFFLE = 1  # The order of the images in each epoch.
STEPS = 2  # All that is random in the training steps; the step and the image are folded in next.

# Folded into the key that an image has in a step.
AFFINE = 0  # Shift, rotation, scale and shear of a distortion.
ELASTIC = 1  # The knots by which a distortion bends an image.
DROPOUT = 2  # The hidden units that are left out; the layer is folded in next.
