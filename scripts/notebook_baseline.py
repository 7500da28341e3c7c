"""Train as the classroom notebook does, in PyTorch: what `scripts/benchmark.py` compares with.

python scripts/notebook_baseline.py [--epochs N] [--quick]

Every image is made a PIL image and then a tensor on its own, as `torchvision.datasets.MNIST` and
`ToTensor` do it, by a `DataLoader` with its default settings. Needs PyTorch: pip install torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from _arguments import make_parser, need

if TYPE_CHECKING:
    import torch


def make_digits(split: str) -> torch.utils.data.Dataset:
    """The images of a split, each read as the classroom notebook reads it."""
    import numpy as np
    import torch
    from PIL import Image

    from rnn_mnist import load

    class Digits(torch.utils.data.Dataset):
        def __init__(self, split: str):
            data = load("mnist", split)
            self.images, self.labels = torch.tensor(data.images), torch.tensor(data.labels).long()

        def __len__(self) -> int:
            return len(self.labels)

        def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
            image = Image.fromarray(self.images[index].numpy())
            tensor = torch.from_numpy(np.array(image, np.uint8)).view(28, 28, 1).permute(2, 0, 1)
            return tensor.contiguous().to(torch.float32).div(255), int(self.labels[index])

    return Digits(split)


def make_network(hidden_size: int = 20) -> torch.nn.Module:
    """The classroom notebook's network: images (B, 28, 28) -> logits (B, 10).

    The log-softmax of the logits is the notebook's output.
    """
    import torch

    class LSTMnist(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(28, hidden_size, batch_first=True)
            self.hidden2digits = torch.nn.Linear(hidden_size, 10)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            _, (hidden, _) = self.lstm(images)
            return self.hidden2digits(hidden[-1])

    return LSTMnist()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = make_parser(__doc__, quick="one epoch of 2,000 images")
    parser.add_argument("--epochs", type=int, default=10, metavar="N", help="epochs (default: 10)")
    given = parser.parse_args(arguments)
    need("torch", "torch")
    # Imported here, so that help and mistyped arguments answer at once.
    import torch

    epochs, splits = given.epochs, ("train", "test")
    if given.quick:
        epochs, splits = 1, ("train[:2000]", "test[:500]")
    torch.manual_seed(0)
    train, test = map(make_digits, splits)
    train_loader = torch.utils.data.DataLoader(train, batch_size=100, shuffle=True)
    test_loader = torch.utils.data.DataLoader(test, batch_size=100)
    model, loss_function = make_network(), torch.nn.NLLLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for epoch in range(1, epochs + 1):
        model.train()
        running = 0.0
        for batch, (images, labels) in enumerate(train_loader, 1):
            optimizer.zero_grad()
            loss = loss_function(torch.log_softmax(model(images.squeeze(1)), dim=1), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
            if batch % 100 == 0:
                print(f"epoch {epoch}, batch {batch}: loss {running / 100:.4f}", flush=True)
                running = 0.0
        model.eval()
        correct = 0
        with torch.no_grad():
            for images, labels in test_loader:
                correct += (model(images.squeeze(1)).argmax(1) == labels).sum().item()
        print(f"epoch {epoch}: test accuracy {correct / len(test):.2%}", flush=True)


if __name__ == "__main__":
    main()
