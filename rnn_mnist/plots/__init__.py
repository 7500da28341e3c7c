"""Arrays -> figures and animations."""

from rnn_mnist.plots import charts, figures, movies
from rnn_mnist.plots.charts import style_axes
from rnn_mnist.plots.style import palette

__all__ = ["charts", "figures", "movies", "palette", "style_axes"]
