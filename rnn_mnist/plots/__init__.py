"""Arrays -> figures and animations."""

from rnn_mnist.plots import charts, figures, movies
from rnn_mnist.plots.charts import dress
from rnn_mnist.plots.drawing import made_up_mind, percent
from rnn_mnist.plots.palette import palette

__all__ = [
    "charts",
    "dress",
    "figures",
    "made_up_mind",
    "movies",
    "palette",
    "percent",
]
