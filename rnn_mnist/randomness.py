"""The purposes of random numbers. Each draws its own, because its number is folded into the key.

JAX's `split(key)[i]` equals `fold_in(key, i)`, so two uses of one key would draw the same bits.
Every use therefore first folds its purpose into the key, and no other use takes the result.
"""

# Folded into a run's seed.
INIT = 0  # The initial parameters.
SHUFFLE = 1  # The order of the images in each epoch.
STEPS = 2  # The training steps. The step and the image are folded in next.
CALIBRATE = 3  # A calibration at the end of a run.
SHAPES = 4  # The made-up shapes of a calibration.

# Folded into the key of an image in a step.
AFFINE = 0  # Shift, rotation, scale and shear of a distortion.
ELASTIC = 1  # The displacements of an elastic distortion.
DROPOUT = 2  # The dropped hidden units. The layer is folded in next.
STROKES = 3  # The strokes that are added to a digit.
THICKNESS = 4  # How much thicker or thinner strokes become.
INPUT_DROPOUT = 5  # The dropped pixels.
