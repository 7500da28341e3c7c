"""Arrays -> figures and animations."""

from rnn_mnist.plots import charts, figures, movies
from rnn_mnist.plots.charts import style_axes
from rnn_mnist.plots.style import drawable, palette, to_png, use_fonts

__all__ = [
    "charts", "drawable", "figures", "movies", "palette", "style_axes", "to_png", "use_fonts",
]  # fmt: skip
