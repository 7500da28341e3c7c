"""Arrays -> figures and animations."""

from rnn_mnist.plots import charts, figures, movies
from rnn_mnist.plots.charts import dress
from rnn_mnist.plots.palette import palette
from rnn_mnist.plots.panels import decision_step, percent

__all__ = [
    "charts",
    "decision_step",
    "dress",
    "figures",
    "movies",
    "palette",
    "percent",
]
