"""Arrays -> figures and animations."""

from rnn_mnist.plots import charts, figures, movies
from rnn_mnist.plots.charts import style_axes
from rnn_mnist.plots.palette import palette
from rnn_mnist.plots.panels import decision_step

__all__ = [
    "charts",
    "decision_step",
    "figures",
    "movies",
    "palette",
    "style_axes",
]
