"""The notebook runs from top to bottom, and shows what it should."""

import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[1] / "scripts" / "rnn_mnist.ipynb"


def test_the_notebook_is_kept_without_outputs():
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    for cell in notebook.cells:
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


@pytest.mark.slow
# Jupyter's client is not clean in this respect.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_the_notebook_runs_from_top_to_bottom(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    assert "EPOCHS = 10\n" in notebook.cells[1].source
    notebook.cells[1].source = notebook.cells[1].source.replace("EPOCHS = 10", "EPOCHS = 2")
    client = nbclient.NotebookClient(notebook, resources={"metadata": {"path": str(tmp_path)}})
    client.execute()  # Raises where a cell fails.
    kinds, said = set(), []
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        for output in cell.outputs:
            assert output.output_type != "error"
            # What goes to standard error are warnings, which no reader should have to see.
            assert output.get("name") != "stderr", output.text
            kinds.update(output.get("data", {}))
            said.append(output.get("text", ""))
        assert cell.outputs or "import" in cell.source
    assert {"image/png", "text/html"} <= kinds
    text = "".join(said)
    assert re.search(r"jax \d+(\.\d+)+ on \w+", text)
    assert "parameters: 4210" in text
    accuracies = [float(found) for found in re.findall(r"test accuracy +([\d.]+) %", text)]
    assert len(accuracies) == 3
    assert accuracies[0] < 20 < 35 < accuracies[2]
    assert len(re.findall(r"\d+\.\d\d %  \{'hidden_size'", text)) == 6
    assert not list(tmp_path.iterdir())
